"""Runs of the tiny grid as if they had finished, for tests of what is chosen and reported; not collected as tests."""

import json
from pathlib import Path

import experiment_steps
from experiment import main
from experiment_report import records_of, tables
from experiment_runs import Outcome

TINY = Path(__file__).with_name("tiny_grid.yaml")
A_TEACHER = {"teacher": "initial", "teacher_updates": 0, "student_updates": 0, "seconds": 0, "curve": []}
CPU = Path(experiment_steps.__file__).with_name("grids") / "cpu.yaml"


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
    """The tables of what is recorded, by loss."""
    Outcome([experiment]).write()
    text = tables(experiment.grid, records_of([experiment.setting]))
    return {line.split(" | ")[1]: line for line in text.splitlines() if line.startswith("| transformer")}


def refused(capsys, *arguments):
    """What the program says, in one line, when it refuses."""
    assert main([*map(str, arguments)]) == 1
    message = capsys.readouterr().err
    assert message.count("\n") == 1 and message.startswith("experiment.py: error: ")
    return message
