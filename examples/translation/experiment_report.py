"""Tables and plots of a grid, from its records alone."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from experiment_runs import read_records, read_teachers
from experiment_settings import Setting
from grid import Grid
from matplotlib.figure import Figure

from fairseq_l2t.pairs.parallel_text import write_lines
from fairseq_l2t.storage import write_atomically

__all__ = ["Records", "line_style", "records_of", "save_figure", "tables", "write_report"]

_COLORS = ("#000000", "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9")


def line_style(number: int) -> tuple[str, str]:
    """Return color and dashes of the line of that number from 0, different ones for the first 28."""
    return _COLORS[number % len(_COLORS)], ("-", "--", ":", "-.")[number // len(_COLORS) % 4]


@dataclass(frozen=True)
class Records:
    """What is recorded of the runs and the teachers of a setting; see `experiment_runs`."""

    setting: Setting
    runs: Sequence[dict]
    teachers: Sequence[dict]


def records_of(settings: Sequence[Setting]) -> list[Records]:
    """Read the records of those settings that have some."""
    found = [Records(one, read_records(one), read_teachers(one)) for one in settings]
    return [records for records in found if records.runs or records.teachers]


def write_report(grid: Grid, settings: Sequence[Setting], output: Path) -> None:
    """Write ``results.md``, ``curves.png`` and ``teachers.png`` of the records that are there; print the tables.

    Args:
        grid: what was run.
        settings: all of the grid's, so that those written before stay in the tables.
        output: the folder for them.
    """
    found = records_of(settings)
    text = tables(grid, found)
    write_lines(output / "results.md", text.split("\n"))
    print(text)
    panels = [
        (records, student)
        for records in found
        for student in records.setting.corpus.students
        if any(run["student"] == student for run in records.runs)
    ]
    if panels:
        _draw_curves(grid, panels, output / "curves.png")
    if any(teacher["curve"] for records in found for teacher in records.teachers):
        _draw_teachers(found, output / "teachers.png")


def save_figure(figure: Figure, path: Path) -> None:
    """Write a PNG, whole or not at all."""
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=110)
    write_atomically(path, [image.getbuffer()])


def tables(grid: Grid, found: Sequence[Records]) -> str:
    """Return the Markdown tables: test scores of each setting, what was chosen on dev, and what teachers cost."""
    parts = []
    for records in found:
        if not records.runs:  # teachers alone
            continue
        setting = records.setting
        parts += [f"### {setting.corpus.name}, {100 * setting.noise:g} % noise", ""]
        rows = [row for student in setting.corpus.students for row in _rows(grid, student, records.runs)]
        parts += _markdown(
            [
                "student",
                "loss",
                "chosen on dev",
                "seeds",
                "dev BLEU",
                "best update",
                "test BLEU",
                "gain",
                "p",
                "chrF",
                "gain",
            ],
            rows,
        )
    costs = [
        [label, str(teacher["teacher_updates"]), f"{teacher['student_updates']:,}", f"{teacher['seconds']:,.0f}"]
        for label, teacher in _teachers(found)
    ]
    if costs:
        parts += ["### What the teachers cost", ""]
        parts += _markdown(["corpus, noise, teacher", "teacher updates", "student updates", "seconds"], costs)
    tests = [run["test"] for records in found for run in records.runs if run["test"]]
    signatures = tests[0]["signatures"] if tests else {}
    return "\n".join([*parts, *(f"    {metric}: {text}" for metric, text in signatures.items())])


def _rows(grid: Grid, student: str, records: Sequence[dict]) -> Iterator[list[str]]:
    for loss in grid.losses:
        runs = [record for record in records if (record["student"], record["loss"]) == (student, loss)]
        counting = {run["seed"]: run for run in runs if run["counts"]}
        if not counting:
            yield [student, loss, f"{len(runs)} trials finished"] + 8 * [""]
            continue
        done = [counting[seed] for seed in grid.seeds if seed in counting]
        chosen = " ".join([*done[0]["options"], *_penalties(done)])
        yield [
            student,
            loss,
            f"`{chosen}`",
            _seeds(done, grid),
            _mean([run["dev_bleu"] for run in done]),
            _mean([float(run["best_update"]) for run in done], ".0f"),
            *_scores(done),
        ]


def _seeds(done: Sequence[dict], grid: Grid) -> str:
    diverged = sum(run.get("diverged", False) for run in done)  # records from before it was looked at have none
    return f"{len(done)} of {len(grid.seeds)}" + (f", {diverged} diverged" if diverged else "")


def _penalties(runs: Sequence[dict]) -> list[str]:
    """What dev chose of several length penalties, of each seed; records from before there was a choice have none."""
    chosen = [f"{run['length_penalty']:g}" for run in runs if run.get("dev_bleu_by_length_penalty")]
    return ["--lenpen", ", ".join(chosen)] if chosen else []


def _scores(runs: Sequence[dict]) -> list[str]:
    tests = [run["test"] for run in runs]
    if not all(tests):
        return 5 * [""]
    cells = []
    for metric, column in zip(tests[0]["signatures"], ("p", None), strict=False):
        cells.append(_mean([test[metric]["score"] for test in tests]))
        differences = [test[metric]["difference"] for test in tests]
        cells.append("" if any(value is None for value in differences) else f"{mean(differences):+.2f}")
        if column:
            cells.append(", ".join(_p_value(test[metric]) for test in tests).strip(", "))
    return cells


def _p_value(score: dict) -> str:
    if score["p_value"] is None:
        return ""
    # Without any difference sacrebleu's test gives its least p-value, which would read as significant.
    return f"{score['p_value']:.3f}" if score["difference"] else "-"


def _mean(values: Sequence[float], form: str = ".2f") -> str:
    spread = f" ({min(values):{form}} to {max(values):{form}})" if len(values) > 1 else ""
    return f"{mean(values):{form}}{spread}"


def _markdown(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(columns) + " |", "|" + len(columns) * "---|"]
    return [*lines, *("| " + " | ".join(row) + " |" for row in rows), ""]


def _teachers(found: Sequence[Records]) -> Iterator[tuple[str, dict]]:
    """Yield a label and the record of every teacher that was trained."""
    for records in found:
        yield from (
            (f"{records.setting.name}, {teacher['teacher']}", teacher)
            for teacher in records.teachers
            if teacher["curve"]
        )


def _draw_curves(grid: Grid, panels: Sequence[tuple[Records, str]], path: Path) -> None:
    """A panel for each setting and student: dev BLEU of the runs that count, the mean over the seeds in bold."""
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(4.2 * columns, 3.0 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for axis, (records, student) in zip(axes, panels, strict=False):
        for number, loss in enumerate(grid.losses):
            color, line = line_style(number)
            runs = [
                run["curve"]
                for run in records.runs
                if run["counts"] and (run["student"], run["loss"]) == (student, loss)
            ]
            for curve in runs:
                axis.plot(*zip(*curve, strict=True), color=color, linestyle=line, linewidth=0.6, alpha=0.5)
            shared = sorted(set.intersection(*({update for update, _ in curve} for curve in runs))) if runs else []
            values = [mean(dict(map(tuple, curve))[update] for curve in runs) for update in shared]
            axis.plot(shared, values, color=color, linestyle=line, linewidth=1.8, label=loss)
        axis.set_title(f"{records.setting.name}, {student}", loc="left", fontsize=9)
        axis.grid(color="0.92")
        axis.set_xlabel("updates", fontsize=8)
        axis.set_ylabel("dev BLEU", fontsize=8)
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    figure.legend(
        *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2 * columns, frameon=False, fontsize=8
    )
    save_figure(figure, path)


def _draw_teachers(found: Sequence[Records], path: Path) -> None:
    """The measure on dev over teacher updates (the paper's Figure 3), coefficients, the hypergradient's norm, and where
    in the windows it arose."""
    figure = Figure(figsize=(15, 3.8), layout="constrained")
    axes = figure.subplots(1, 4)
    for number, (label, teacher) in enumerate(_teachers(found)):
        lines = teacher["curve"]
        x = [line["teacher_update"] for line in lines]
        style = {
            "color": f"C{number % 10}",
            "linestyle": ("-", "--", ":")[number // 10 % 3],
            "marker": ".",
            "label": label,
        }
        for axis, name in zip(axes, ("measure", "phi_mean", "hypergradient_norm"), strict=False):
            axis.plot(x, [line[name] for line in lines], **style, linewidth=0.6 if name == "measure" else 1.5)
        judged = [
            (line["teacher_update"], line["holdout_measure"]) for line in lines if line["holdout_measure"] is not None
        ]
        if judged:
            axes[0].plot(*zip(*judged, strict=True), **{**style, "label": None}, linewidth=2.2)
        pulls = [mean(tenth) for tenth in zip(*(line["pull_by_tenth"] for line in lines), strict=True)]
        axes[3].plot([(tenth + 0.5) / len(pulls) for tenth in range(len(pulls))], pulls, **style)
    titles = (
        "measure on dev, bold: on held-back pairs",
        "mean coefficient",
        "norm of the hypergradient",
        "pull on all coefficients, mean of windows",
    )
    for axis, title in zip(axes, titles, strict=True):
        axis.set_title(title, loc="left", fontsize=9)
        axis.set_xlabel("teacher updates", fontsize=8)
        axis.grid(color="0.92")
    axes[2].set_yscale("log")
    axes[3].set_xlabel("share of the window", fontsize=8)
    axes[3].axhline(0, color="0.4", linewidth=0.8)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    save_figure(figure, path)
