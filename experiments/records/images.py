"""Records of students of image classification: one JSON line each, of all settings in one file."""

from __future__ import annotations

import fcntl
import hashlib
import json
from pathlib import Path
from typing import Any

from experiments.grid import ImageGrid, ImageSetting
from fairseq_l2t.pairs.parallel_text import BadInput
from fairseq_l2t.teaching.record import BEST_NAME

__all__ = [
    "RUNS",
    "Record",
    "RunKey",
    "append_record",
    "read_records",
    "teacher_digest",
    "teacher_file",
]

RUNS = "runs.jsonl"

RunKey = tuple[str, str, float, int]
"""Setting, options of the loss, learning rate, seed."""

Record = dict[str, Any]
"""What was run, and its errors."""


def read_records(path: Path, grid: ImageGrid) -> dict[RunKey, Record]:
    """Return the records of a file by what was run.

    Left out are those of other student options or of a teacher that was trained further since, and a last line that
    was cut.

    Raises:
        BadInput: a line is no record.
    """
    found = {}
    for number, line in enumerate(_lines(path), 1):
        if not line.endswith("\n"):
            continue
        try:
            record = json.loads(line)
            key = record["setting"], record["options"], record["lr"], record["seed"]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise BadInput(
                f"{path}, line {number}: expected a record that `experiments run` wrote ({error})"
            ) from error
        # A record without the field is from before it was written: its options are unknown.
        if record.get("student") == grid.student and _is_of_present_teacher(path.parent, record):
            found[key] = record
    return found


def append_record(path: Path, record: Record) -> None:
    """Append one line; several programs may append to a file at a time.

    A last line that a killed program has cut is removed first.

    Raises:
        OSError: the line could not be written; its filename is ``path``, and nothing of the line is left.
    """
    line = f"{json.dumps(record)}\n".encode()
    try:
        with path.open("a+b", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            end = file.read().rfind(b"\n") + 1
            file.truncate(end)
            try:
                while line:  # a full disk takes a part of a line, and refuses the rest
                    line = line[file.write(line) :]
            except OSError:
                file.truncate(end)
                raise
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error


def teacher_file(output: Path, setting: ImageSetting, name: str) -> Path:
    """Return the file of the teacher ``name`` of a grid."""
    return output / setting.name / name / BEST_NAME


def teacher_digest(output: Path, setting: ImageSetting, name: str) -> dict[str, str]:
    """Return how a record names its teacher: by the grid's name and the digest of the file."""
    return {"name": name, "sha256": _sha256(teacher_file(output, setting, name))}


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []


def _is_of_present_teacher(output: Path, record: Record) -> bool:
    teacher = record.get("teacher")
    if teacher is None:
        return "--teacher-path" not in record["options"]
    file = output / record["setting"] / teacher["name"] / BEST_NAME
    return not file.exists() or _sha256(file) == teacher["sha256"]  # records are kept without their teachers, too


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
