"""Records of runs: what they say after a grid was changed, what is kept of them, and what is refused."""

import json

import pytest

from experiments.__main__ import main
from experiments.plan.outcome import Outcome
from experiments.plan.translation import Experiment
from experiments.records.translation import read_records
from tests.experiments.finished_runs import (
    A_TEACHER,
    TINY,
    compare_all,
    finish,
    finish_all,
    refused,
    table_of,
    unpadded,
    with_values,
)


def test_scores_of_what_is_no_longer_chosen_are_left_out(experiment):
    """A learning rate was added and is the better one: what was decoded and compared before is of another run."""
    student = finish_all(experiment)
    compare_all(
        experiment,
        lambda seed: [
            {
                "name": f"transformer.{loss}.seed{seed}.txt",
                "BLEU": {"score": 20.0, "p_value": None},
                "chrF2": {"score": 40.0, "p_value": None},
            }
            for loss in experiment.grid.losses
        ],
    )
    scores = {
        loss: [bool(record["test"]) for record in recorded(experiment, loss) if record["counts"]]
        for loss in experiment.grid.losses
    }
    assert all(found == [True, True] for found in scores.values())
    more = with_values(student, learning_rates=(*student.learning_rates, 0.03))
    changed = Experiment(with_values(experiment.grid, students={student.name: more}), experiment.setting)
    assert not any(record["test"] for record in recorded(changed, "fixed"))  # the new trials have not finished
    for loss in changed.grid.losses.values():
        for trial in changed.trials(changed.students[0], loss):
            if "lr0.03" in trial.name:
                finish(changed, trial.name, (20, 1.0), (40, 50.0 if loss.name == "fixed" else 0.5))
    [first] = [record for record in recorded(changed, "fixed") if record["counts"] and record["seed"] == 1]
    assert first["options"] == ["--lr", "0.03"] and first["test"] is None
    assert "| `--lr 0.03` |" in table_of(changed)["fixed"] and "20.00" not in table_of(changed)["fixed"]


def recorded(experiment, loss):
    Outcome([experiment]).write()
    return [record for record in read_records(experiment.setting.folder) if record["loss"] == loss]


def test_a_loss_that_the_grid_has_no_longer_keeps_its_records(experiment):
    finish_all(experiment)
    before = recorded(experiment, "dynamic")
    losses = {name: loss for name, loss in experiment.grid.losses.items() if name != "dynamic"}
    assert recorded(Experiment(with_values(experiment.grid, losses=losses), experiment.setting), "dynamic") == before
    assert len(before) == 3
    assert recorded(experiment, "dynamic") == before  # and they are not there twice


def test_a_report_writes_no_records(experiment, tmp_path, capsys):
    """With a grid that was changed it would say of old runs what they are not."""
    finish_all(experiment)
    before = recorded(experiment, "fixed")
    path = experiment.setting.folder / "runs.jsonl"
    grid, written = tmp_path / "grid.yaml", path.read_bytes()
    grid.write_text(TINY.read_text("utf-8").replace("  fixed: {teacher: initial}\n", ""), encoding="utf-8")
    assert main(["report", str(grid), "--output-dir", str(tmp_path)]) == 0
    assert path.read_bytes() == written and before
    rows = [unpadded(line) for line in capsys.readouterr().out.splitlines()]
    assert any("| dynamic |" in row for row in rows) and not any("| fixed |" in row for row in rows)


@pytest.mark.parametrize("name", ["runs.jsonl", "teachers.jsonl"])
def test_records_without_their_runs_are_not_replaced(experiment, tmp_path, capsys, name):
    path = experiment.setting.folder / name
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(A_TEACHER) + "\n", encoding="utf-8")
    message = refused(capsys, "run", TINY, "--output-dir", tmp_path, "--students")
    assert f"--output-dir: {path} holds records of runs that are kept without the runs" in message
    assert json.loads(path.read_text("utf-8")) == A_TEACHER and not experiment.has_logs


A_RUN = {
    "student": "transformer",
    "loss": "dynamic",
    "seed": 1,
    "options": [],
    "counts": True,
    "dev_bleu": 1.0,
    "best_update": 20,
    "curve": [[20, 1.0]],
    "test": None,
}


def test_the_record_of_a_run_is_read(experiment):
    path = experiment.setting.folder / "runs.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(A_RUN) + "\n", encoding="utf-8")
    assert read_records(experiment.setting.folder) == [A_RUN]


OTHER_KINDS = [{**A_RUN, "seed": "1"}, {**A_RUN, "curve": None}, {**A_RUN, "dev_bleu": "1.0"}, {**A_RUN, "test": 20.0}]
DAMAGED = [b"5", b'{"student": "a"}', b"\xff", *(json.dumps(record).encode() for record in OTHER_KINDS)]


@pytest.mark.parametrize("line", DAMAGED)
def test_damaged_records_are_named(experiment, tmp_path, capsys, line):
    path = experiment.setting.folder / "runs.jsonl"
    path.parent.mkdir(parents=True)
    path.write_bytes(line + b"\n")
    message = refused(capsys, "report", TINY, "--output-dir", tmp_path)
    assert str(path) in message and "expected a record that `experiments run` wrote" in message


def test_a_folder_is_the_same_however_it_is_spelled(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    shown = set()
    for spelling in ("out", "./out/", str(tmp_path / "out"), "nowhere/../out"):
        assert main(["run", str(TINY), "--output-dir", spelling, "--dry-run"]) == 0
        shown.add(capsys.readouterr().out.split("wall time")[0])
    assert len(shown) == 1 and " out/tiny.noise30/data/bin " in shown.pop()
