"""Tables and plots of an image grid, from its records; plots where its teachers are there, too."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from statistics import mean
from typing import Any

from experiments.grid import BASELINE, ImageGrid, ImageSetting
from experiments.plan.images import chosen_options
from experiments.records.images import RUNS, Record, RunKey, read_records, teacher_file
from experiments.report.tables import markdown
from fairseq_l2t.classification.evaluation import interval_of
from fairseq_l2t.inspection.classifier_plots import plot_run
from fairseq_l2t.pairs.parallel_text import BadInput
from fairseq_l2t.storage import write_atomically
from fairseq_l2t.teaching.record import LOG_NAME

__all__ = ["tables", "write_report"]

_COLUMNS = ("loss", "chosen on dev", "seeds", "dev error %", "test error %, 95 % interval", f"against {BASELINE}")


def write_report(grid: ImageGrid, output: Path) -> None:
    """Write ``results.md`` and the plots of each teacher that was trained here; print the tables.

    Raises:
        BadInput: there are no records.
    """
    records = read_records(output / RUNS, grid)
    if not records:
        raise BadInput(f"--output-dir: {output}, expected the folder of a grid that was run; it has no records of it")
    text = tables(grid, records)
    write_atomically(output / "results.md", [text.encode()])
    print(text)
    for setting in grid.settings:
        for folder in (teacher_file(output, setting, name).parent for name in grid.teachers):
            if (folder / LOG_NAME).exists():
                print(*plot_run(folder, folder), sep="\n")


def tables(grid: ImageGrid, records: dict[RunKey, Record]) -> str:
    """Return the tables: test errors of each loss in each setting, with intervals over seeds."""
    parts = []
    for setting in grid.settings:
        if rows := list(_rows(grid, setting, records)):
            noise = f"{100 * setting.label_noise:g} % wrong labels"
            parts.append(f"### {setting.data} ({rows[0]['protocol']}), {noise}, {setting.student}\n")
            base = next((row["errors"].mean for row in rows if row["loss"] == BASELINE), None)
            parts.append(markdown(_COLUMNS, [_cells(row, base) for row in rows]))
    return "\n".join(parts)


def _rows(grid: ImageGrid, setting: ImageSetting, records: dict[RunKey, Record]) -> Iterator[dict[str, Any]]:
    for loss in grid.losses:
        chosen = chosen_options(grid, setting, loss, records)
        if chosen is None:
            continue
        found = [records[key] for seed in grid.seeds if (key := (setting.name, *chosen, seed)) in records]
        if found:
            yield {
                "loss": loss,
                "chosen": f"`{chosen[0]} --lr {chosen[1]:g}`",
                "seeds": len(found),
                "protocol": found[0]["protocol"],
                "errors": interval_of([record["test_error"] for record in found]),
                "dev": mean(record["dev_error"] for record in found),
            }


def _cells(row: dict[str, Any], base: float | None) -> list[object]:
    change = f"{100 * (row['errors'].mean / base - 1):+.0f} %" if base and row["loss"] != BASELINE else ""
    return [row["loss"], row["chosen"], row["seeds"], f"{row['dev']:.2f}", row["errors"], change]
