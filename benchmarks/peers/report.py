"""The table of `benchmarks.peers.run`, from its cells."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.peers.cells import Cell

__all__ = ["table"]

_LONGEST_MESSAGE = 120


def table(cells: Sequence[Cell]) -> str:
    """Return a Markdown table, families and optimizers down, peers across; equal messages share a footnote."""
    peers = list(dict.fromkeys(cell.peer for cell in cells))
    notes: dict[str, int] = {}
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for cell in cells:
        text = cell.verdict
        if cell.message:
            note = notes.setdefault(cell.message, len(notes) + 1)
            text = f"{text.partition(':')[0]} [{note}]"
        rows.setdefault((cell.family, cell.optimizer), {})[cell.peer] = text
    lines = [f"| family | optimizer | {' | '.join(peers)} |", "|" + " --- |" * (2 + len(peers))]
    for (family, optimizer), row in rows.items():
        lines.append(f"| {family} | {optimizer} | {' | '.join(row.get(peer, '') for peer in peers)} |")
    lines += ["", *(f"[{number}] `{_shortened(message)}`" for message, number in notes.items())]
    return "\n".join(lines)


def _shortened(message: str) -> str:
    return message if len(message) <= _LONGEST_MESSAGE else message[: _LONGEST_MESSAGE - 3] + "..."
