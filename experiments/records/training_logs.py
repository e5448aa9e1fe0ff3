"""Logs of training runs: learning curve, time and divergence of a student, lines and progress of a teacher."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from fairseq_l2t.pairs.parallel_text import BadInput, read_json_lines

__all__ = ["Run", "has_diverged", "read_run", "share_in_log", "teacher_lines", "updates_in_log"]

_UPDATES = re.compile(r'"num_updates": "(\d+)"')
_SHARES = re.compile(r"\| progress: ([\d.]+) %, ")
_DIVERGED = re.compile(r"^FloatingPointError: ", re.MULTILINE)


@dataclass(frozen=True)
class Run:
    """A run of fairseq-train.

    ``curve`` is (update, dev BLEU) of every validation, ``seconds`` those of its updates alone, whole
    seconds between two lines of the log. One that ``diverged`` ended in NaN or infinity, and has what it had until
    then: 0 dev BLEU after 0 updates if that was before the first validation.
    """

    curve: tuple[tuple[int, float], ...]
    seconds: float
    diverged: bool = False

    @property
    def best(self) -> tuple[int, float]:
        """Update and BLEU of the best validation, the last of equals, whose checkpoint fairseq keeps."""
        return max(self.curve, key=lambda point: (point[1], point[0]))

    @property
    def updates(self) -> int:
        """Update of the last validation."""
        return self.curve[-1][0]


def read_run(log: Path) -> Run:
    """Read the log of a finished run with ``--log-format json`` and ``--eval-bleu``.

    Raises:
        BadInput: no validation stands in it, or a line is cut.
    """
    found = log.stat()
    return _read_run(log, found.st_mtime_ns, found.st_size)


@lru_cache(maxsize=1024)  # what was chosen is asked again and again while steps wait for one another
def _read_run(log: Path, changed: int, size: int) -> Run:
    curve: dict[int, float] = {}
    seconds: dict[int, float] = {}
    text = log.read_text(encoding="utf-8", errors="replace")
    lines = text.splitlines()
    for number, (line, following) in enumerate(zip(lines, [*lines[1:], ""], strict=True), 1):
        _, _, kind, values = (line.split(" | ", 3) + 4 * [""])[:4]
        if kind not in ("valid", "train_inner"):
            continue
        # An interrupted run goes on from its last checkpoint: what it does again, it says again.
        try:
            found = json.loads(values)
            if kind == "train_inner":
                seconds[int(found["num_updates"])] = float(found["train_wall"])  # since the line before
            elif "valid_bleu" in found:
                curve[int(found["valid_num_updates"])] = float(found["valid_bleu"])
        except (ValueError, KeyError, TypeError):
            # Cut where the run was killed, the next line is the command that it went on with.
            if not following.startswith("$ "):
                raise BadInput(
                    f"{log}, line {number}: {values!r}, expected a whole line of fairseq-train; remove "
                    f"{log.with_suffix('.done')} and the run's checkpoints to train it again"
                ) from None
    diverged = _ended_in_nan(text)
    if not curve and diverged:
        curve[0] = 0.0
    if not curve:
        raise BadInput(f"{log}: no validation in it, expected the log of a finished fairseq-train")
    return Run(tuple(sorted(curve.items())), sum(seconds.values()), diverged)


def has_diverged(log: Path) -> bool:
    """Whether fairseq-train ended as gradients or loss were NaN or infinite, the last time it was started.

    Its search for the module where that began may end in an error of its own, which then stands last.
    """
    return _ended_in_nan(log.read_text(encoding="utf-8", errors="replace"))


def _ended_in_nan(text: str) -> bool:
    return _DIVERGED.search(text, text.rfind("\n$ ") + 1) is not None


def teacher_lines(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of a teacher's log; none of a teacher without updates.

    Raises:
        BadInput: a line is cut.
    """
    path = folder / "teacher_log.jsonl"
    return read_json_lines(path, "expected a whole line of l2t-train-teacher") if path.exists() else []


def updates_in_log(log: Path, total: int) -> Callable[[], float]:
    """Return the progress of a fairseq-train run that writes JSON lines to ``log``."""

    def share() -> float:
        found = _UPDATES.findall(log.read_text(encoding="utf-8", errors="replace")) if log.exists() else []
        return int(found[-1]) / total if found else 0.0

    return share


def share_in_log(log: Path) -> Callable[[], float]:
    """Return the progress of a teacher's training that writes its lines to ``log``, from its first seconds on."""

    def share() -> float:
        found = _SHARES.findall(log.read_text(encoding="utf-8", errors="replace")) if log.exists() else []
        return float(found[-1]) / 100 if found else 0.0

    return share
