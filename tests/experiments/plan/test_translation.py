"""Grids of experiments: what is chosen and by what, what counts, and what is reported; whole in `make test-slow`."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import yaml

from experiments.__main__ import main
from experiments.grid import load_grid
from experiments.plan.outcome import Outcome
from experiments.plan.setting import settings_of
from experiments.plan.translation import Experiment
from experiments.records.translation import read_records
from fairseq_l2t.storage import lock_run_folder
from tests.experiments.finished_runs import (
    A_TEACHER,
    GRIDS,
    TINY,
    compare_all,
    finish,
    finish_all,
    refused,
    table_of,
    unpadded,
    with_values,
)


def test_every_share_of_noise_has_a_folder_of_its_own(experiment, tmp_path):
    grid = with_values(experiment.grid, noise=(0.0, 0.004, 0.29, 0.3, 0.301, 0.304))
    names = [setting.name for setting in settings_of(grid, tmp_path) if setting.corpus.name == "tiny"]
    assert names == [f"tiny.noise{percent}" for percent in ("0", "0.4", "29", "30", "30.1", "30.4")]


def test_learning_rate_and_choice_are_taken_by_dev_bleu(experiment):
    student, loss = experiment.students[0], experiment.grid.losses["label-smoothing"]
    trials = experiment.trials(student, loss)
    assert [trial.options for trial in trials] == [
        ("--lr", rate, "--label-smoothing", amount) for rate in ("0.01", "0.02") for amount in ("0.1", "0.2")
    ]
    for trial, bleu in zip(trials, (3.0, 9.0, 8.0, 1.0), strict=True):
        finish(experiment, trial.name, (20, bleu), (40, bleu - 1))
    assert experiment.chosen(student, loss) == trials[1]
    steps = {step.name: step for step in experiment.steps()}
    further = steps["tiny.noise30.train.transformer.label-smoothing.seed2"]
    assert further.late() == trials[1].options
    assert set(further.after) == {f"tiny.noise30.train.{trial.name}" for trial in trials}
    decoded = steps["tiny.noise30.decode.transformer.label-smoothing.seed1"]
    assert decoded.late() == (
        "--path",
        str(experiment.setting.folder / "checkpoints" / trials[1].name / "checkpoint_best.pt"),
    )


def test_students_of_a_loss_differ_in_its_options_alone(experiment):
    steps = [step for step in experiment.steps() if ".train." in step.name and "lr0.01" in step.name]
    own = ("--criterion", "--save-dir", "--label-smoothing", "--user-dir", "--task", "--teacher-path")
    shared = {
        tuple(
            word
            for before, word in zip(("", *step.command), step.command, strict=False)
            if not {before, word} & set(own)
        )
        for step in steps
    }
    assert len(steps) == 5 and len(shared) == 1
    taught = next(step for step in steps if ".dynamic." in step.name)
    assert "tiny.noise30.teacher.dynamic" in taught.after
    assert experiment.setting.teacher("dynamic") / "teacher.safetensors" in taught.inputs


def test_records_and_tables(experiment):
    student = finish_all(experiment)
    row = table_of(experiment)["label-smoothing"]
    assert row == (
        "| transformer | label-smoothing | `--lr 0.01 --label-smoothing 0.1` | 2 of 2 "
        "| 11.50 (11.00 to 12.00) | 30 (20 to 40) |  |  |  |  |  |"
    )
    records = read_records(experiment.setting.folder)
    assert len(records) == 3 * 2 + 4 + 4 * 1  # trials, and the second seed of each loss
    assert [record["counts"] for record in records[:3]] == [True, False, True]
    assert experiment.decoding.baseline(student).name == "label-smoothing"
    # With comparisons.
    names = ["label-smoothing", "cross-entropy", "fixed", "dynamic"]
    compare_all(
        experiment,
        lambda seed: [
            {
                "name": f"transformer.{name}.seed{seed}.txt",
                "BLEU": {"score": 20.0 + seed * index, "p_value": 0.01 * index if index else None},
                "chrF2": {"score": 40.0 + index, "p_value": 0.5 if index else None},
            }
            for index, name in enumerate(names)
        ],
    )
    rows = table_of(experiment)
    end = "| 24.50 (23.00 to 26.00) | +4.50 | 0.030, 0.030 | 43.00 (43.00 to 43.00) | +3.00 |"
    assert rows["dynamic"].endswith(end)
    assert rows["label-smoothing"].endswith("| 20.00 (20.00 to 20.00) |  |  | 40.00 (40.00 to 40.00) |  |")


def test_a_report_needs_the_records_alone(experiment, tmp_path, capsys):
    """Also beside settings that were never run here, and it leaves them as they are."""
    finish_all(experiment)
    Outcome([experiment]).write()
    out, kept = ["--output-dir", str(tmp_path)], tmp_path / "kept"
    assert main(["report", str(TINY), *out]) == 0
    said = capsys.readouterr().out.split("wall time")[0]
    assert any(unpadded(line).startswith("| transformer | dynamic |") for line in said.splitlines())
    name = experiment.setting.name
    (kept / name).mkdir(parents=True)
    for file in ("runs.jsonl", "teachers.jsonl"):
        (kept / name / file).write_bytes((tmp_path / name / file).read_bytes())
    assert main(["report", str(TINY), "--output-dir", str(kept)]) == 0
    assert capsys.readouterr().out.split("wall time")[0] == said
    assert (kept / "curves.png").read_bytes() == (tmp_path / "curves.png").read_bytes()
    (kept / name / "runs.jsonl").write_text('{"corpus":', encoding="utf-8")
    assert f"{kept / name / 'runs.jsonl'}, line 1: " in refused(capsys, "report", TINY, "--output-dir", kept)


def test_some_settings_alone(tmp_path, capsys):
    out = ["--output-dir", str(tmp_path / "out")]
    assert main(["run", str(TINY), *out, "--dry-run", "--settings", "tiny.noise30"]) == 0
    shown = capsys.readouterr().out
    assert "tiny.noise30.train" in shown and "absent" not in shown
    message = refused(capsys, "run", TINY, *out, "--settings", "tiny.noise31")
    assert "--settings: 'tiny.noise31', expected some of tiny.noise30, absent.noise30" in message


def test_a_watched_student_keeps_its_checkpoints(experiment):
    student = finish_all(experiment)
    steps = {step.name: step for step in experiment.steps()}
    first = experiment.chosen(student, experiment.grid.losses["dynamic"])
    trial, further = (steps[f"tiny.noise30.train.{name}"] for name in (first.name, "transformer.dynamic.seed2"))
    assert trial.command[-2:] == ("--keep-interval-updates", "-1") and "-1" not in further.command
    shares = steps["tiny.noise30.shares.transformer"]
    assert set(shares.after) == {name for name in steps if ".train." in name and ".seed2" not in name}
    assert shares.late()[0] == "--checkpoints" and len(shares.late()) == 1 + 4
    assert shares.late()[-1] == f"dynamic={experiment.setting.folder / 'checkpoints' / first.name}"
    clean = list(Experiment(experiment.grid, replace(experiment.setting, noise=0.0)).steps())
    assert not [step for step in clean if "shares" in step.name or "-1" in step.command]


def test_some_students_alone(experiment, tmp_path, capsys):
    grid = with_values(experiment.grid, students={**experiment.grid.students, "other": experiment.students[0]})
    names = [step.name for step in Experiment(grid, experiment.setting).steps(["other"])]
    assert names == ["tiny.noise30.teacher.initial", "tiny.noise30.teacher.dynamic", "tiny.noise30.inspect.dynamic"]
    assert main(["run", str(TINY), "--output-dir", str(tmp_path / "out"), "--dry-run", "--students"]) == 0
    shown = capsys.readouterr().out
    assert "\n3 steps\n" in shown and all(f"{name}\n" in shown for name in names)
    message = refused(capsys, "run", TINY, "--output-dir", tmp_path / "out", "--students", "lstm")
    assert "--students: 'lstm', expected some of transformer" in message
    # One of the grid, but of none of these settings.
    own = ["--output-dir", tmp_path / "out", "--settings", "multi30k.noise0"]
    message = refused(capsys, "run", GRIDS / "cpu.yaml", *own, "--students", "lstm")
    assert "--students: 'lstm', expected some of transformer" in message


def test_errors_and_what_is_left_out(tmp_path, capsys):
    assert main(["run", str(tmp_path / "no.yaml"), "--output-dir", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert main(["run", str(TINY), "--output-dir", str(tmp_path / "out"), "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "absent.noise30: left out, no folder" in shown
    message = refused(
        capsys, "run", TINY, "--output-dir", tmp_path / "out", "--settings", "tiny.noise30", "absent.noise30"
    )
    assert "--settings: absent.noise30, expected its corpus in --raw-dir; no folder" in message
    assert "fairseq-train" in shown and not (tmp_path / "out").exists()
    with pytest.raises(SystemExit):
        main(["run", str(TINY), "--output-dir", str(tmp_path), "--jobs", "0"])


def test_folders_that_cannot_be_used_are_refused(tmp_path, capsys):
    out = tmp_path / "out"
    for _ in range(2):  # not there, and there without a run
        assert f"--output-dir: {out}, expected the folder" in refused(capsys, "report", TINY, "--output-dir", out)
        assert not list(tmp_path.glob("out/*"))
        out.mkdir(exist_ok=True)
    with lock_run_folder(out):
        assert f"{out}: another run (process {os.getpid()})" in refused(capsys, "run", TINY, "--output-dir", out)
        folder = settings_of(load_grid(TINY), out)[0].folder
        folder.mkdir()
        (folder / "teachers.jsonl").write_text(json.dumps(A_TEACHER) + "\n", encoding="utf-8")
        assert main(["report", str(TINY), "--output-dir", str(out)]) == 0  # while it runs
    capsys.readouterr()
    (tmp_path / "file").touch()
    assert f"{tmp_path / 'file'}: File exists" in refused(capsys, "run", TINY, "--output-dir", tmp_path / "file")


def test_data_that_runs_stand_on_is_not_made_anew(tmp_path, capsys):
    setting = settings_of(load_grid(TINY), tmp_path)[0]
    setting.data_bin.mkdir(parents=True)
    record = setting.data_bin / "prepared.json"
    record.write_text('{"vocabulary": 100}', encoding="utf-8")
    message = refused(capsys, "run", TINY, "--output-dir", tmp_path)
    assert f"{setting.data_bin}: was made with other vocabulary (100, now 200), " in message and record.exists()
    record.write_text('{"vocab', encoding="utf-8")
    assert f"{record}: damaged, expected JSON" in refused(capsys, "run", TINY, "--output-dir", tmp_path)


def test_what_the_data_cannot_be_is_told_by_the_key_of_the_grid(tmp_path, capsys):
    grid = tmp_path / "grid.yaml"
    grid.write_text(TINY.read_text(encoding="utf-8").replace("vocabulary: 200}", "vocabulary: 5}"), encoding="utf-8")
    message = refused(capsys, "run", grid, "--output-dir", tmp_path / "out")
    assert f"{grid}: corpora.tiny.vocabulary: 5, refused by SentencePiece" in message


@pytest.mark.very_slow
def test_a_learning_rate_that_ends_in_nan_is_one_that_was_not_chosen(tmp_path):
    content = yaml.safe_load(TINY.read_text("utf-8"))
    content.update(seeds=[1], length_penalties=[1], watched=[], teachers={})
    content["losses"] = {name: content["losses"][name] for name in content["baselines"]}
    content["students"]["transformer"]["learning_rates"] = [2.0e9, 0.01]
    grid = tmp_path / "grid.yaml"
    grid.write_text(yaml.safe_dump(content), encoding="utf-8")
    command = [sys.executable, "-m", "experiments", "run", str(grid), "--output-dir", str(tmp_path / "out")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr
    lines = (tmp_path / "out" / "tiny.noise30" / "runs.jsonl").read_text("utf-8").splitlines()
    found = {(record["loss"], *record["options"]): record for record in map(json.loads, lines)}
    high, low = found["cross-entropy", "--lr", "2e+09"], found["cross-entropy", "--lr", "0.01"]
    assert (high["diverged"], high["counts"], low["diverged"], low["updates"]) == (True, False, False, 40)
    assert low["counts"] and low["test"]


@pytest.mark.very_slow
def test_a_grid_is_run_killed_and_resumed(tmp_path):
    command = [sys.executable, "-m", "experiments", "run", str(TINY), "--output-dir", str(tmp_path / "out")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 300
        while not list(tmp_path.glob("out/*/logs/*.train.*.done")) and time.monotonic() < deadline:
            time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 128 + signal.SIGTERM
    done = {path: path.stat().st_mtime_ns for path in tmp_path.glob("out/*/logs/*.done")}
    assert done
    result = subprocess.run(command, capture_output=True, text=True, timeout=1200)
    assert result.returncode == 0, result.stderr
    assert all(path.stat().st_mtime_ns == time_ns for path, time_ns in done.items())
    lines = (tmp_path / "out" / "tiny.noise30" / "runs.jsonl").read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines]
    counting = [record for record in records if record["counts"]]
    assert len(counting) == 4 * 2 and all(record["test"] for record in counting)
    assert all(set(record["dev_bleu_by_length_penalty"]) == {"1", "1.5"} for record in counting)
    assert (tmp_path / "out" / "results.md").read_text(encoding="utf-8").strip() in result.stdout
    for name in ("curves.png", "teachers.png"):
        assert (tmp_path / "out" / name).read_bytes().startswith(b"\x89PNG")
    setting = tmp_path / "out" / "tiny.noise30"
    said = (setting / "logs" / "tiny.noise30.inspect.dynamic.txt").read_text("utf-8")
    assert "Stages of a student's life" in said
    assert list((setting / "inspected" / "dynamic").glob("*.png"))
    shares = (tmp_path / "out" / "tiny.noise30" / "shares" / "transformer.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line)["update"] for line in shares] == 4 * [20, 40]
    # A second run does nothing and says the same.
    again = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert again.returncode == 0
    assert "done before" in again.stdout and " s\n" not in again.stdout.split("###")[0]
