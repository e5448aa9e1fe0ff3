"""The log of a teacher training: JSON lines, one per teacher update."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairseq_l2t.inspection.errors import InspectionError, require_moderate_size
from fairseq_l2t.storage.json_log import LogLines, TeacherLogRecord, read_log_lines

__all__ = ["TrainingLog", "read_training_log"]

_MOST_LINES_NAMED = 5


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
    """Read a log. Of several lines for one update the last counts; lines that are not records are noted and left out.

    Raises:
        InspectionError: the file is unreadable, or no line is a record of a teacher update.
    """
    path = Path(path)
    try:
        require_moderate_size(path)
        lines = read_log_lines(path, TeacherLogRecord, "teacher_update")
    except OSError as error:
        raise InspectionError(f"--log {path}: {error.strerror}") from error
    if not lines.records:
        raise InspectionError(f"--log {path}: no line with a teacher_update; expected a log of l2t-train-teacher")
    return TrainingLog(path, tuple(lines.records.values()), tuple(_notes(lines)))


def _notes(lines: LogLines) -> Iterator[str]:
    if lines.foreign:
        numbers = ", ".join(map(str, lines.foreign[:_MOST_LINES_NAMED]))
        more = ", ..." if len(lines.foreign) > _MOST_LINES_NAMED else ""
        yield (
            f"left out {len(lines.foreign)} of the lines, because they are not records of teacher updates: "
            f"line {numbers}{more}"
        )
    if lines.incomplete is not None:
        yield f"line {lines.incomplete} is incomplete and was left out"


def _number(value: Any) -> float:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return float(value) if is_number else math.nan
