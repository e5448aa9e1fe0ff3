"""The records of `benchmarks.cost.unroll`, one JSON object a line, read back."""

from __future__ import annotations

import json
from pathlib import Path

__all__ = ["BadRecords", "read_records"]

_REQUIRED = {"size", "family", "updates", "competitor", "repeat", "status", "machine"}


class BadRecords(ValueError):
    """A file that does not hold the records of a benchmark."""


def read_records(path: Path) -> list[dict]:
    """Return the records of a JSON lines file; an incomplete last line is left out.

    Raises:
        BadRecords: no such file, or a line that is no record; the message names file and line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadRecords(f"{path}: {error}; expected the --json file of a benchmark") from error
    records = []
    for number, line in enumerate(text[: text.rfind("\n") + 1].splitlines(), 1):
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            record = None
        if not isinstance(record, dict) or not record.keys() >= _REQUIRED:
            raise BadRecords(f"{path}, line {number}: {line[:60]!r}; expected a record of a benchmark")
        records.append(record)
    return records
