"""The log of a teacher training: JSON lines, one per teacher update."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairseq_l2t.inspection.errors import InspectionError, require_moderate_size

__all__ = ["TrainingLog", "read_training_log"]


@dataclass(frozen=True)
class TrainingLog:
    """Lines in the order of ``teacher_update``, at least one.

    Args:
        path: the file.
        lines: the JSON objects.
        notes: lines that were left out, with the reason, for a report.
    """

    path: Path
    lines: tuple[dict[str, Any], ...]
    notes: tuple[str, ...] = ()

    def column(self, name: str) -> NDArray[np.float64]:
        """Return the values of one field, (lines,) in float64; NaN where it is absent or null."""
        return np.array([_number(line.get(name)) for line in self.lines], dtype=np.float64)

    @property
    def lives(self) -> int:
        """Number of student lives in the lines."""
        return len({line.get("student_life") for line in self.lines})


def read_training_log(path: str | os.PathLike[str]) -> TrainingLog:
    """Read a log. A resumed run repeats updates: of several lines for one update, the last counts.

    Raises:
        InspectionError: the file is unreadable or empty, or a line is not a JSON object. The last line may be
            incomplete, as a run may be killed while it writes.
    """
    path = Path(path)
    try:
        require_moderate_size(path)
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InspectionError(f"--log {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InspectionError(f"--log {path}: not UTF-8 ({error.reason})") from error
    by_update: dict[int, dict[str, Any]] = {}
    notes = []
    rows = text.split("\n")
    for number, row in enumerate(rows, start=1):
        try:
            line = json.loads(row) if row.strip() else {}
        except (ValueError, RecursionError) as error:
            if number < len(rows):
                raise InspectionError(f"--log {path}, line {number}: {error}") from error
            notes.append(f"line {number} is incomplete and was left out")
            continue
        if not isinstance(line, dict):
            raise InspectionError(f"--log {path}, line {number}: {type(line).__name__}; expected a JSON object")
        if type(line.get("teacher_update")) is int:
            by_update[line["teacher_update"]] = line
    if not by_update:
        raise InspectionError(f"--log {path}: no line with a teacher_update")
    return TrainingLog(path, tuple(_in_order(by_update)), tuple(notes))


def _in_order(by_update: dict[int, dict[str, Any]]) -> Iterable[dict[str, Any]]:
    return (by_update[update] for update in sorted(by_update))


def _number(value: Any) -> float:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number else math.nan
