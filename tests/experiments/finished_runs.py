"""Runs of the tiny grid as if they had finished, for tests of what is chosen and reported; not collected as tests."""

import json
from pathlib import Path

from experiments.__main__ import main
from experiments.plan.outcome import Outcome
from experiments.report.translation import records_of, tables

TINY = Path(__file__).with_name("tiny_grid.yaml")
A_TEACHER = {"teacher": "initial", "teacher_updates": 0, "student_updates": 0, "seconds": 0, "curve": []}
EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"
GRIDS, KEPT = EXPERIMENTS / "grids" / "translation", EXPERIMENTS / "kept" / "translation"


def with_values(entry, **values):
    """The same entry of a grid with other values."""
    return entry.model_copy(update=values)


def unpadded(row):
    """A line of a Markdown table without the spaces that align its columns."""
    return f"| {' | '.join(cell.strip() for cell in row.strip().strip('|').split('|'))} |"


def write_log(path, *curve, more=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = []
    for update, bleu in curve:
        lines.append(f'2026 | INFO | train_inner | {{"num_updates": "{update}", "train_wall": "3"}}')
        lines.append(f'2026 | INFO | valid | {{"valid_num_updates": "{update}", "valid_bleu": "{bleu}"}}')
    path.write_text("\n".join(lines) + "\n" + more, encoding="utf-8")


def mark_done(experiment, *names):
    """As if the very commands of these steps had finished, one after the other."""
    steps = {step.name: step for step in experiment.steps()}
    for name in names:
        steps[name].marker.write_text(json.dumps(steps[name].identity()), encoding="utf-8")


def finish(experiment, name, *curve):
    write_log(experiment.log(name), *curve)
    mark_done(experiment, experiment.train_name(name))


def compare_all(experiment, systems):
    """As if the test set had been decoded and compared; ``systems(seed)`` is what l2t-compare says of them."""
    for seed in experiment.grid.seeds:
        path = experiment.setting.comparison(experiment.students[0].name, seed)
        path.parent.mkdir(exist_ok=True)
        said = {"signatures": {"BLEU": "b", "chrF2": "c"}, "systems": systems(seed)}
        path.write_text(json.dumps(said), encoding="utf-8")
    for kind in (".decode.", ".compare."):
        mark_done(experiment, *(step.name for step in experiment.steps() if kind in step.name))


def finish_all(experiment):
    """As if everything had been trained; the second seed of a loss is a little better than the first."""
    student = experiment.students[0]
    for number, loss in enumerate(experiment.grid.losses.values()):
        for index, trial in enumerate(experiment.trials(student, loss)):
            finish(experiment, trial.name, (20, 1.0), (40, 10.0 + number - index))
        finish(experiment, f"{student.name}.{loss.name}.seed2", (20, 11.0 + number), (40, 2.0))
    return student


def table_of(experiment):
    """The rows of the tables of what is recorded, by loss."""
    Outcome([experiment]).write()
    text = tables(experiment.grid, records_of([experiment.setting]))
    rows = [unpadded(line) for line in text.splitlines() if line.startswith("| transformer")]
    return {row.split(" | ")[1]: row for row in rows}


def refused(capsys, command, *arguments):
    """The message of the program, in one line, when it refuses."""
    assert main([command, *map(str, arguments)]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1 and message.startswith("experiments: error: ")
    return message
