"""Tables and plots of a translation grid, from its records alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from experiments.grid import TranslationGrid
from experiments.plan.setting import Setting
from experiments.records.translation import Record, read_records, read_teachers
from experiments.report.plots import draw_curves, draw_teachers
from experiments.report.tables import markdown, mean_and_range
from fairseq_l2t.pairs.parallel_text import write_lines

__all__ = ["RecordsOfSetting", "records_of", "tables", "write_report"]

_COLUMNS = ("student", "loss", "chosen on dev", "seeds", "dev BLEU", "best update")
_COLUMNS_OF_TEST = ("test BLEU", "gain", "p", "chrF", "gain")
_COLUMNS_OF_TEACHERS = ("corpus, noise, teacher", "teacher updates", "student updates", "seconds")


@dataclass(frozen=True)
class RecordsOfSetting:
    """The records of the runs and the teachers of a setting."""

    setting: Setting
    runs: Sequence[Record]
    teachers: Sequence[Record]


def records_of(settings: Sequence[Setting]) -> list[RecordsOfSetting]:
    """Read the records of those settings that have some."""
    found = [RecordsOfSetting(one, read_records(one.folder), read_teachers(one.folder)) for one in settings]
    return [records for records in found if records.runs or records.teachers]


def write_report(grid: TranslationGrid, settings: Sequence[Setting], output: Path) -> None:
    """Write ``results.md``, ``curves.png`` and ``teachers.png``; print the tables.

    Args:
        grid: what was run.
        settings: all of the grid's, so that those written before stay in the tables.
        output: the folder for them.
    """
    found = records_of(settings)
    text = tables(grid, found)
    write_lines(output / "results.md", text.split("\n"))
    print(text)
    panels = {
        f"{records.setting.name}, {student.name}": _curves(grid, student.name, records.runs)
        for records in found
        for student in grid.students_of(records.setting.corpus)
        if any(run["student"] == student.name for run in records.runs)
    }
    if panels:
        draw_curves(list(grid.losses), panels, output / "curves.png")
    if trained := {label: teacher["curve"] for label, teacher in _teachers(found)}:
        draw_teachers(trained, output / "teachers.png")


def tables(grid: TranslationGrid, found: Sequence[RecordsOfSetting]) -> str:
    """Return the tables: test scores of each setting, choices on dev, and the cost of the teachers."""
    parts = []
    for records in (records for records in found if records.runs):
        corpus, noise = records.setting.corpus, records.setting.noise
        rows = [row for student in grid.students_of(corpus) for row in _rows(grid, student.name, records.runs)]
        title = f"### {corpus.name}, {100 * noise:g} % noise\n"
        parts += [title, markdown([*_COLUMNS, *_COLUMNS_OF_TEST], rows)]
    costs = [
        [label, str(teacher["teacher_updates"]), f"{teacher['student_updates']:,}", f"{teacher['seconds']:,.0f}"]
        for label, teacher in _teachers(found)
    ]
    if costs:
        parts += ["### Cost of the teachers\n", markdown(_COLUMNS_OF_TEACHERS, costs)]
    tests = [run["test"] for records in found for run in records.runs if run["test"]]
    signatures = tests[0]["signatures"] if tests else {}
    return "\n".join([*parts, *(f"    {metric}: {text}" for metric, text in signatures.items())])


def _rows(grid: TranslationGrid, student: str, records: Sequence[Record]) -> Iterator[list[str]]:
    for loss in grid.losses:
        runs = [record for record in records if (record["student"], record["loss"]) == (student, loss)]
        counting = {run["seed"]: run for run in runs if run["counts"]}
        if not counting:
            yield [student, loss, f"{len(runs)} trials finished"] + 8 * [""]
            continue
        done = [counting[seed] for seed in grid.seeds if seed in counting]
        dev, updates = [run["dev_bleu"] for run in done], [float(run["best_update"]) for run in done]
        chosen = " ".join([*done[0]["options"], *_penalties(done)])
        row = [student, loss, f"`{chosen}`", _seeds(done, grid), mean_and_range(dev), mean_and_range(updates, ".0f")]
        yield row + _scores(done)


def _seeds(done: Sequence[Record], grid: TranslationGrid) -> str:
    diverged = sum(run.get("diverged", False) for run in done)  # early records do not have the field
    return f"{len(done)} of {len(grid.seeds)}" + (f", {diverged} diverged" if diverged else "")


def _penalties(runs: Sequence[Record]) -> list[str]:
    """The length penalty that dev chose for each seed; early records have no choice."""
    chosen = [f"{run['length_penalty']:g}" for run in runs if run.get("dev_bleu_by_length_penalty")]
    return ["--lenpen", ", ".join(chosen)] if chosen else []


def _scores(runs: Sequence[Record]) -> list[str]:
    tests = [run["test"] for run in runs]
    if not all(tests):
        return len(_COLUMNS_OF_TEST) * [""]
    cells = []
    for metric, column in zip(tests[0]["signatures"], ("p", None), strict=False):
        cells.append(mean_and_range([test[metric]["score"] for test in tests]))
        gains = [test[metric]["difference"] for test in tests]
        cells.append("" if any(gain is None for gain in gains) else f"{mean(gains):+.2f}")
        if column:
            cells.append(", ".join(_p_value(test[metric]) for test in tests).strip(", "))
    return cells


def _p_value(score: Record) -> str:
    if score["p_value"] is None:
        return ""
    # Without any difference sacrebleu's test gives its least p-value, which would read as significant.
    return f"{score['p_value']:.3f}" if score["difference"] else "-"


def _teachers(found: Sequence[RecordsOfSetting]) -> Iterator[tuple[str, Record]]:
    """Yield a label and the record of every teacher that was trained."""
    for records in found:
        for teacher in records.teachers:
            if teacher["curve"]:
                yield f"{records.setting.name}, {teacher['teacher']}", teacher


def _curves(grid: TranslationGrid, student: str, runs: Sequence[Record]) -> dict[str, list[list[tuple[int, float]]]]:
    """The learning curves of the runs that count, by loss."""
    counting = [run for run in runs if run["counts"] and run["student"] == student]
    return {loss: [run["curve"] for run in counting if run["loss"] == loss] for loss in grid.losses}
