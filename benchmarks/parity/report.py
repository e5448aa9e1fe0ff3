"""Tables of `benchmarks.parity.run`, from its records."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from tabulate import tabulate

from fairseq_l2t.testing.parity import BOUND

__all__ = ["tables"]

TITLES = {
    "cross_entropy": "cross-entropy",
    "dynamic": "dynamic loss under a teacher, after one update of cross-entropy",
}


def tables(records: Sequence[dict]) -> str:
    """Return a table for each loss, a row for each family and a column for each optimizer, and every bad cell."""
    lines: list[str] = []
    for loss, title in TITLES.items():
        lines += _lines(title, [record for record in records if record["loss"] == loss])
    return "\n".join(lines)


def _lines(title: str, records: Sequence[dict]) -> Iterator[str]:
    if not records:
        return
    updates = records[0]["updates"]
    yield f"\nLargest difference after {updates} updates, {title} (bound {BOUND:g}; 0: every bit is equal):\n"
    shown = {(record["family"], record["optimizer"]): _shown(record) for record in records}
    families, optimizers = (list(dict.fromkeys(names)) for names in zip(*shown, strict=True))
    rows = [[family, *(shown.get((family, optimizer), "") for optimizer in optimizers)] for family in families]
    yield tabulate(rows, ["student", *optimizers], tablefmt="github", disable_numparse=True)
    measured = [record for record in records if "error" not in record]
    if measured:
        worst = max(measured, key=lambda record: record["difference"])
        moved, clipped = (min(record[name] for record in measured) for name in ("moved", "clipped"))
        yield (
            f"\n{len(records)} cells: {sum(record['is_equal'] for record in measured)} equal to the bit, "
            f"{sum(not record['good'] for record in records)} bad. Worst: {worst['difference']:.1e} "
            f"({worst['family']}, {worst['optimizer']}). Smallest movement: {moved:.1e} of a tensor's norm; "
            f"smallest share of clipped updates: {clipped:.0%}."
        )
    yield from (f"BAD: {json.dumps(record)}" for record in records if not record["good"])


def _shown(record: dict) -> str:
    if "error" in record:
        return "failed"
    return "0" if record["is_equal"] else f"{record['difference']:.0e}"
