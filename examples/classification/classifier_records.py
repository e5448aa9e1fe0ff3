"""One JSON line a student; tables made of the lines alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from classifier_grid import Grid, GridError, Setting

from fairseq_l2t.classification.evaluation import interval_of
from fairseq_l2t.storage import write_atomically
from fairseq_l2t.teaching.record import BEST_NAME as TEACHER_NAME

__all__ = [
    "BASELINE",
    "Record",
    "RunKey",
    "append_record",
    "chosen_options",
    "read_records",
    "teacher_digest",
    "teacher_file",
    "write_tables",
]

BASELINE = "cross-entropy"

RunKey = tuple[str, str, float, int]
"""Setting, options of the loss, learning rate, seed."""

Record = dict[str, Any]
"""A line: what was run, and its errors."""


def read_records(path: Path, grid: Grid) -> dict[RunKey, Record]:
    """Return the lines of a file by what was run.

    Left out are those of other student options or of a teacher that has been trained further since, and a last one that
    was cut.

    Raises:
        GridError: a line that is no record.
    """
    found = {}
    for number, line in enumerate(_lines(path), 1):
        if line.endswith("\n"):
            try:
                record = json.loads(line)
                key = record["setting"], record["options"], record["lr"], record["seed"]
            except (json.JSONDecodeError, KeyError, TypeError) as error:
                raise GridError(f"{path}, line {number}: not a record of results.py ({error})") from error
            # Lines of before there was the field are of unknown options.
            if record.get("student") == grid.student and _is_of_todays_teacher(path.parent, record):
                found[key] = record
    return found


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []


def _is_of_todays_teacher(output: Path, record: Record) -> bool:
    then = record.get("teacher")
    if then is None:
        return "--teacher-path" not in record["options"]
    file = output / record["setting"] / then["name"] / TEACHER_NAME
    return not file.exists() or _sha256(file) == then["sha256"]  # records alone, without their teachers, can be read


def teacher_file(output: Path, setting: Setting, name: str) -> Path:
    """Return where the teacher ``name`` of a grid is."""
    return output / setting.name / name / TEACHER_NAME


def teacher_digest(output: Path, setting: Setting, name: str) -> dict[str, str]:
    """Return how a record names its teacher: by the grid's name and by the file's digest."""
    return {"name": name, "sha256": _sha256(teacher_file(output, setting, name))}


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def append_record(path: Path, record: Record) -> None:
    """Write one line, in place of a last one that was cut."""
    lines = _lines(path)
    if lines and not lines[-1].endswith("\n"):
        write_atomically(path, ["".join(lines[:-1]).encode()])
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def chosen_options(grid: Grid, setting: Setting, loss: str, records: dict[RunKey, Record]) -> tuple[str, float] | None:
    """Return option and learning rate with the least mean dev error of the tuning seeds; None: not all have run."""
    errors = {}
    for options in grid.losses[loss]:
        for lr in grid.learning_rates:
            found = [records.get((setting.name, options, lr, seed)) for seed in grid.tuning_seeds]
            if any(record is None for record in found):
                return None
            errors[options, lr] = mean(record["dev_error"] for record in found)
    return min(errors, key=errors.__getitem__)


def write_tables(grid: Grid, records: dict[RunKey, Record], output: Path) -> str:
    """Write ``results.md`` and return it: test errors of each loss, with intervals over seeds."""
    parts = []
    for setting in grid.settings:
        rows = list(_rows(grid, setting, records))
        if rows:
            noise = f"{100 * setting.label_noise:g} % wrong labels"
            parts += [f"### {setting.data} ({rows[0]['protocol']}), {noise}, {setting.student}", ""]
            parts += _table(rows)
    text = "\n".join(parts)
    write_atomically(output / "results.md", [text.encode()])
    return text


def _rows(grid: Grid, setting: Setting, records: dict[RunKey, Record]) -> Iterable[dict[str, Any]]:
    for loss in grid.losses:
        chosen = chosen_options(grid, setting, loss, records)
        if chosen is None:
            continue
        found = [records[key] for seed in grid.seeds if (key := (setting.name, *chosen, seed)) in records]
        if found:
            yield {
                "loss": loss,
                "chosen": f"{chosen[0]} --lr {chosen[1]:g}",
                "seeds": len(found),
                "protocol": found[0]["protocol"],
                "errors": interval_of([record["test_error"] for record in found]),
                "dev": mean(record["dev_error"] for record in found),
            }


def _table(rows: Sequence[dict[str, Any]]) -> list[str]:
    base = next((row["errors"].mean for row in rows if row["loss"] == BASELINE), None)
    lines = [
        "| loss | chosen on dev | seeds | dev error % | test error %, 95 % interval | against cross-entropy |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        is_compared = base not in (None, 0) and row["loss"] != BASELINE
        change = f"{100 * (row['errors'].mean / base - 1):+.0f} %" if is_compared else ""
        cells = (row["loss"], f"`{row['chosen']}`", row["seeds"], f"{row['dev']:.2f}", row["errors"], change)
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return [*lines, ""]
