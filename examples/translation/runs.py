"""What a finished training run was like, read off fairseq-train's log."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from textfiles import BadInput

__all__ = ["Run", "read_run", "teacher_lines"]


@dataclass(frozen=True)
class Run:
    """A run of fairseq-train.

    ``curve`` is (update, dev BLEU) of every validation, ``seconds`` those of its updates alone, whole
    seconds between two lines of the log.
    """

    curve: tuple[tuple[int, float], ...]
    seconds: float

    @property
    def best(self) -> tuple[int, float]:
        """Update and BLEU of the best validation, the first of equals, whose checkpoint is kept."""
        return max(self.curve, key=lambda point: (point[1], -point[0]))

    @property
    def updates(self) -> int:
        """Update of the last validation."""
        return self.curve[-1][0]


def read_run(log: Path) -> Run:
    """Read the log of a run with ``--log-format json`` and ``--eval-bleu``.

    Raises:
        BadInput: no validation stands in it.
    """
    curve: dict[int, float] = {}
    seconds: dict[int, float] = {}
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        _, _, kind, values = (line.split(" | ", 3) + 4 * [""])[:4]
        # An interrupted run goes on from its last checkpoint: what it does again, it says again.
        if kind == "valid":
            found = json.loads(values)
            if "valid_bleu" in found:
                curve[int(found["valid_num_updates"])] = float(found["valid_bleu"])
        elif kind == "train_inner":
            found = json.loads(values)
            seconds[int(found["num_updates"])] = float(found["train_wall"])  # since the line before
    if not curve:
        raise BadInput(f"{log}: no validation in it, expected the log of a finished fairseq-train")
    return Run(tuple(sorted(curve.items())), sum(seconds.values()))


def teacher_lines(folder: Path) -> list[dict]:
    """Return the lines of a teacher's log; none of a teacher without updates."""
    path = folder / "teacher_log.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
