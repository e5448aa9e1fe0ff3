"""The results of classification: what is chosen and by what, what counts, and that nothing is done twice."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from classifier_grid import GridError, read_grid
from classifier_records import (
    append_record,
    chosen_options,
    read_records,
    teacher_digest,
    teacher_file,
    write_tables,
)

TINY = Path(__file__).with_name("tiny_classifier_grid.yaml")


def record(options, lr, seed, dev, test=None):
    student = read_grid(TINY).student
    return {
        "setting": "digits.noise40.mlp-8",
        "student": student,
        "options": options,
        "lr": lr,
        "seed": seed,
        "protocol": "our split",
        "dev_error": dev,
        "test_error": test,
    }


def test_choices_are_those_of_dev_and_of_tuning_seeds(tmp_path):
    grid, path = read_grid(TINY), tmp_path / "runs.jsonl"
    first, second = grid.losses["label-smoothing"]
    for options, lr, dev in ((first, 0.03, 5.0), (first, 0.1, 4.0), (second, 0.03, 3.0)):
        append_record(path, record(options, lr, 101, dev))
    assert chosen_options(grid, grid.settings[0], "label-smoothing", read_records(path, grid)) is None  # one is missing
    append_record(path, record(second, 0.1, 101, 3.5))
    append_record(path, record(first, 0.1, 1, 0.0, 0.0))  # a seed that counts does not choose
    assert chosen_options(grid, grid.settings[0], "label-smoothing", read_records(path, grid)) == (second, 0.03)


def test_tables_by_hand(tmp_path):
    grid, path = read_grid(TINY), tmp_path / "runs.jsonl"
    own = {"teacher": {"name": "trained", "sha256": "of a file that is not here"}}
    for loss, tests in (("cross-entropy", (10.0, 12.0)), ("l2t-dlf", (5.0, 6.0))):
        options = grid.losses[loss][0]
        for lr in grid.learning_rates:
            append_record(path, record(options, lr, 101, lr) | own)
        for seed, test in zip(grid.seeds, tests, strict=True):
            append_record(path, record(options, 0.03, seed, 7.0, test) | own)
    text = write_tables(grid, read_records(path, grid), tmp_path)
    # Two seeds: t = 12.706 with one degree of freedom; standard errors 1 and 0.5.
    assert "| cross-entropy | `--loss cross-entropy --lr 0.03` | 2 | 7.00 | 11.00 ± 12.71 |  |" in text
    assert "| 5.50 ± 6.35 | -50 % |" in text and "label-smoothing" not in text
    assert (tmp_path / "results.md").read_text() == text


def test_a_cut_line_is_left_out(tmp_path):
    grid, path = read_grid(TINY), tmp_path / "runs.jsonl"
    append_record(path, record("a", 0.1, 1, 2.0))
    with path.open("a") as file:
        file.write(json.dumps(record("a", 0.1, 2, 2.0))[:-5])
    assert [key[-1] for key in read_records(path, grid)] == [1]
    append_record(path, record("a", 0.1, 3, 2.0))  # in its place
    assert [key[-1] for key in read_records(path, grid)] == [1, 3]
    path.write_text(path.read_text() + "{}\n")
    with pytest.raises(GridError, match=f"^{path}, line 3: not a record of results.py"):
        read_records(path, grid)


def test_records_under_a_teacher_that_was_trained_further_do_not_count(tmp_path):
    grid, path = read_grid(TINY), tmp_path / "runs.jsonl"
    setting, options = grid.settings[0], grid.losses["l2t-dlf"][0]
    file = teacher_file(tmp_path, setting, "trained")
    file.parent.mkdir(parents=True)
    file.write_bytes(b"first")
    taught = {"teacher": teacher_digest(tmp_path, setting, "trained")}
    append_record(path, record(options, 0.1, 1, 2.0) | taught)
    append_record(path, record(options, 0.1, 2, 2.0))  # which teacher is not known
    append_record(path, record("--loss cross-entropy", 0.1, 3, 2.0))
    assert [key[-1] for key in read_records(path, grid)] == [1, 3]
    file.write_bytes(b"later")
    assert [key[-1] for key in read_records(path, grid)] == [3]
    file.unlink()  # the records alone, as they are kept in the repository
    assert [key[-1] for key in read_records(path, grid)] == [1, 3]


def test_records_of_other_students_do_not_count(tmp_path):
    grid, path = read_grid(TINY), tmp_path / "runs.jsonl"
    append_record(path, record("a", 0.1, 1, 2.0))
    append_record(path, record("a", 0.1, 2, 2.0) | {"student": grid.student + " --split-seed 3"})
    append_record(path, {key: value for key, value in record("a", 0.1, 3, 2.0).items() if key != "student"})
    assert [key[-1] for key in read_records(path, grid)] == [1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("seeds: [1, 2]", "seeds: [1, x]"), "'x'; expected a whole number"),
        (lambda text: text.replace("teachers:", "teacher:"), "entries .*expected"),
        (lambda text: text.replace("student: mlp-8", "network: mlp-8"), "settings: .*; expected the entries"),
        (lambda text: text.replace("tuning_seeds: [101]", "tuning_seeds: []"), r"tuning_seeds: \[\]; expected a list"),
        (lambda text: text.replace('["--loss cross-entropy"]', '"--loss x"'), "losses: cross-entropy: '--loss x'; exp"),
        (lambda text: "[", "while parsing"),
        (lambda text: "", "entries NoneType"),
    ],
)
def test_bad_grids_are_refused(tmp_path, change, message):
    path = tmp_path / "grid.yaml"
    path.write_text(change(TINY.read_text()))
    with pytest.raises(GridError, match=message) as raised:
        read_grid(path)
    assert str(raised.value).startswith(str(path)) and "\n" not in str(raised.value)


def test_the_grids_here_can_be_read(repository):
    grids = list((repository / "examples" / "classification" / "grids").glob("*.yaml"))
    assert grids and all(read_grid(path).losses["cross-entropy"] for path in grids)


@pytest.mark.slow
def test_a_grid_is_run_once(tmp_path, run_command, repository):
    script = repository / "examples" / "classification" / "results.py"
    command = ["python", script, TINY, "--output-dir", tmp_path / "out"]
    found = run_command(command).stdout
    assert all(f"| {loss} |" in found for loss in ("cross-entropy", "label-smoothing", "l2t-dlf"))
    lines = (tmp_path / "out" / "runs.jsonl").read_text().splitlines()
    assert len(lines) == 2 * 4 + 3 * 2  # two rates of four options choose, two seeds of three losses count
    assert all((json.loads(line)["test_error"] is None) == (json.loads(line)["seed"] == 101) for line in lines)
    assert (tmp_path / "out" / "digits.noise40.mlp-8" / "trained" / "phi.png").exists()
    (tmp_path / "out" / "runs.jsonl").write_text("\n".join(lines[:-3]) + "\n")  # as if stopped before the last three
    assert run_command(command).stdout.partition("wall")[0] == found.partition("wall")[0]
    again = (tmp_path / "out" / "runs.jsonl").read_text().splitlines()
    assert again[:-3] == lines[:-3] and len(again) == len(lines)
    told = run_command([*command[:2], tmp_path / "none.yaml", *command[3:]], expect=2).stderr
    assert told.startswith("results.py: error: ") and "none.yaml" in told and told.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("then", "now", "message"),
    [
        ("--loss cross-entropy", "--loss cros-entropy", "l2t-classify train: error: argument --loss: invalid choice"),
        ("--label-smoothing 0.4", "--label-smoothing 4", "--label-smoothing: 4.0; expected"),
        ("--teacher-path trained", "--teacher-path traind", "--teacher-path traind; expected one of trained"),
        ("--teacher-keys 2", "--teacher-keys 0", "--teacher-keys: 0; expected at least 1"),
    ],
)
def test_options_that_cannot_be_used_are_refused_first(then, now, message, tmp_path, run_command, repository):
    grid = tmp_path / "grid.yaml"
    grid.write_text(TINY.read_text().replace(then, now))
    script = repository / "examples" / "classification" / "results.py"
    told = run_command(["python", script, grid, "--output-dir", tmp_path / "out"], expect=2).stderr
    assert told.startswith(f"results.py: error: {grid}: {message}") and told.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="children are found in /proc")
@pytest.mark.parametrize(
    ("number", "whom", "code"),
    [
        (signal.SIGKILL, "student", 1),
        (signal.SIGTERM, "all", 143),
        (signal.SIGINT, "all", 130),
    ],
)
def test_a_student_or_all_ended_by_a_signal(number, whom, code, tmp_path, repository):
    grid = tmp_path / "grid.yaml"
    text = TINY.read_text().replace("--total-updates 20", "--total-updates 2000").replace("--teacher-updates 2", "")
    text = text.replace('teachers: {trained: "--lr 0.05', 'teachers: {trained: "--teacher-updates 0 --lr 0.05')
    grid.write_text(text)
    script = repository / "examples" / "classification" / "results.py"
    command = [sys.executable, script, grid, "--output-dir", tmp_path / "out", "--jobs", "1"]
    running = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    try:
        deadline, records = time.monotonic() + 60, tmp_path / "out" / "runs.jsonl"
        while not records.exists():
            assert time.monotonic() < deadline and running.poll() is None
            time.sleep(0.05)
        os.kill(_student_process(running.pid) if whom == "student" else running.pid, number)
        _, told = running.communicate(timeout=60)
    finally:
        running.kill()
    assert running.returncode == code and "Traceback" not in told
    if whom == "student":
        assert "results.py: error: the process of a student was killed" in told
    assert records.read_text().endswith("\n")


def _student_process(parent):
    for path in Path("/proc").glob("[0-9]*"):
        try:
            own = (path / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
            command = (path / "cmdline").read_bytes()
        except OSError:
            continue
        if int(own[1]) == parent and b"spawn_main" in command:
            return int(path.name)
    raise LookupError(f"process {parent} has no students")
