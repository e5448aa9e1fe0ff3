"""Logs of JSON lines, one record for each numbered update, and their repair on resuming."""

from __future__ import annotations

import errno
import json
import logging
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ConfigDict

from fairseq_l2t.storage.atomic import write_atomically
from fairseq_l2t.storage.schema import Count, FileValues, Share, validated

__all__ = ["JsonLog", "LogLines", "LogRecord", "TeacherLogRecord", "read_log_lines"]

_logger = logging.getLogger(__name__)


class LogRecord(FileValues):
    """The fields of a record that its readers depend on; other fields are accepted."""

    model_config = ConfigDict(extra="allow")


class TeacherLogRecord(LogRecord):
    """A line of ``teacher_log.jsonl`` (`teaching.update_report.UpdateReport`); earlier versions wrote fewer fields."""

    teacher_update: Count
    student_life: Count | None = None
    student_update: Count | None = None
    progress: Share | None = None
    measure: float | None = None
    holdout_measure: float | None = None
    states: list[Any] | None = None


@dataclass(frozen=True)
class LogLines:
    """The content of a log.

    Args:
        records: the JSON objects by their number, in the order of the numbers; of several with one number the last.
        raw: the line of each record, newline included, by the same numbers.
        foreign: numbers (from 1) of the lines that are not records, except an incomplete last one.
        whole: the whole file.
        incomplete: number of the last line if it has no newline and is not a record; None otherwise.
    """

    records: dict[int, dict[str, Any]]
    raw: dict[int, bytes]
    foreign: tuple[int, ...]
    whole: bytes
    incomplete: int | None


def read_log_lines(path: str | os.PathLike[str], schema: type[LogRecord], number: str) -> LogLines:
    """Read a log; lines that are not records are counted, not refused.

    Args:
        path: the file.
        schema: fields of a record.
        number: name of the field that numbers the records.

    Raises:
        OSError: the file cannot be read or is not a regular file; its filename is ``path``.
    """
    found: dict[int, tuple[dict[str, Any], bytes]] = {}
    foreign, incomplete = [], None
    whole = _read(Path(path))
    for position, line in enumerate(_split(whole), start=1):
        record = _record(line, schema)
        if record is not None:
            found[record[number]] = record, line if line.endswith(b"\n") else line + b"\n"
        elif not line.endswith(b"\n"):
            incomplete = position
        elif line.strip():
            foreign.append(position)
    order = sorted(found)
    return LogLines(
        records={key: found[key][0] for key in order},
        raw={key: found[key][1] for key in order},
        foreign=tuple(foreign),
        whole=whole,
        incomplete=incomplete,
    )


class JsonLog:
    """The log of a run in a locked folder.

    Args:
        path: the file.
        schema, number: see `read_log_lines`.
    """

    def __init__(self, path: Path, schema: type[LogRecord], number: str) -> None:
        self.path, self._schema, self._number = path, schema, number

    def append(self, record: Mapping[str, Any]) -> None:
        """Write a record as the last line.

        Raises:
            OSError: the line could not be written; its filename is the log. An incomplete line is left out on resuming.
        """
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
        except OSError as error:  # that of a full disk has no filename
            raise OSError(error.errno, error.strerror or str(error), os.fspath(self.path)) from error

    def keep_until(self, last: int) -> list[int]:
        """Keep the records of updates up to ``last``, and return their numbers.

        Later updates are newer than the state that is resumed and will be made again. An incomplete last line is left
        out. If other lines are not records, the file is kept under another name, with a warning.

        Raises:
            OSError: the log could not be read or written; its filename is the log.
        """
        if not os.path.lexists(self.path):
            return []
        lines = read_log_lines(self.path, self._schema, self._number)
        if lines.foreign:
            damaged = self.path.with_name(f"{self.path.stem}_damaged{self.path.suffix}")
            write_atomically(damaged, [lines.whole])
            _logger.warning(
                "%s: not a record with a field %s: %s; left out, the whole file is kept as %s",
                self.path,
                self._number,
                _told(lines.foreign),
                damaged.name,
            )
        kept = [number for number in lines.raw if number <= last]
        content = b"".join(lines.raw[number] for number in kept)
        if content != lines.whole:
            write_atomically(self.path, [content])
        return kept


def _read(path: Path) -> bytes:
    """Return the bytes of a regular file; a device such as ``/dev/full`` has no end."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        return path.read_bytes()
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), os.fspath(path)) from error


def _split(text: bytes) -> list[bytes]:
    """Return the lines with their newlines; ``bytes.splitlines`` would end one at a carriage return as well."""
    *whole, last = text.split(b"\n")
    return [line + b"\n" for line in whole] + ([last] if last else [])


def _record(line: bytes, schema: type[LogRecord]) -> dict[str, Any] | None:
    try:
        record: dict[str, Any] = json.loads(line.decode("utf-8"))
        validated(schema, record)
    except (ValueError, RecursionError):  # ValueError: UTF-8, JSON, integers with too many digits, and the schema
        return None
    return record


def _told(lines: tuple[int, ...], most: int = 5) -> str:
    more = f" and {len(lines) - most} more" if len(lines) > most else ""
    return f"line {', '.join(map(str, lines[:most]))}{more}"
