"""Records of the runs and teachers of a setting of translation: all that a report is made of.

A setting has its records in its own folder, so that they can be kept without the checkpoints.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fairseq_l2t.pairs.parallel_text import BadInput, read_json_lines

__all__ = ["RUNS", "TEACHERS", "Record", "read_records", "read_teachers", "refuse_kept_records"]

RUNS, TEACHERS = "runs.jsonl", "teachers.jsonl"
Record = dict[str, Any]
_NUMBER = (int, float)
_RUN = {
    "student": str,
    "loss": str,
    "seed": int,
    "options": list,
    "counts": bool,
    "dev_bleu": _NUMBER,
    "best_update": int,
    "curve": list,
    "test": (dict, type(None)),
}
_TEACHER = {"teacher": str, "teacher_updates": int, "student_updates": int, "seconds": _NUMBER, "curve": list}


def read_records(folder: Path) -> list[Record]:
    """Return the records of a setting's runs; none if nothing was run.

    Raises:
        BadInput: a line is no JSON, or a value has a type that this package does not write.
    """
    return _read(folder / RUNS, _RUN)


def read_teachers(folder: Path) -> list[Record]:
    """Return the records of a setting's teachers; see `read_records`."""
    return _read(folder / TEACHERS, _TEACHER)


def refuse_kept_records(folder: Path) -> None:
    """Refuse to run a setting in a folder that holds the records of runs, but not the runs: it would replace them.

    Raises:
        BadInput: names the file.
    """
    for path in (folder / RUNS, folder / TEACHERS):
        if path.exists() and path.stat().st_size:
            raise BadInput(
                f"--output-dir: {path} holds records of runs that are kept without the runs; choose another folder, "
                "and --teachers for the teachers that are kept with them"
            )


def _read(path: Path, types: Mapping[str, Any]) -> list[Record]:
    expected = "expected a record that `experiments run` wrote; remove the line, or restore the file"
    records = read_json_lines(path, expected) if path.exists() else []
    for number, record in enumerate(records, 1):
        # The default, this very function, has none of the types.
        if not isinstance(record, dict) or not all(isinstance(record.get(key, _read), types[key]) for key in types):
            raise BadInput(f"{path}, line {number}: {record!r:.80}, {expected}")
    return records
