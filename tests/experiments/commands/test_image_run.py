"""Grids of images, run: nothing is done twice, options are refused first, and a killed run goes on."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import pytest

from experiments.__main__ import main
from tests.end_to_end import preloaded
from tests.end_to_end.settings import log_lines
from tests.experiments.finished_runs import refused, unpadded

TINY = Path(__file__).parent.with_name("tiny_image_grid.yaml")
RUN = ["python", "-m", "experiments", "run"]


@pytest.mark.slow
def test_a_grid_is_run_once(tmp_path, run_command, capsys):
    command = [*RUN, TINY, "--output-dir", tmp_path / "out"]

    def tables():
        shown = run_command(command).stdout
        return [unpadded(line) for line in shown.splitlines() if line.startswith("|")]

    found = "\n".join(tables())
    assert all(f"| {loss} |" in found for loss in ("cross-entropy", "label-smoothing", "l2t-dlf"))
    lines = (tmp_path / "out" / "runs.jsonl").read_text().splitlines()
    assert len(lines) == 2 * 4 + 3 * 2  # two rates of four options choose, two seeds of three losses count
    assert all((json.loads(line)["test_error"] is None) == (json.loads(line)["seed"] == 101) for line in lines)
    assert (tmp_path / "out" / "digits.noise40.mlp-8" / "trained" / "phi.png").exists()
    (tmp_path / "out" / "runs.jsonl").write_text("\n".join(lines[:-3]) + "\n")  # as if stopped before the last three
    assert "\n".join(tables()) == found
    again = (tmp_path / "out" / "runs.jsonl").read_text().splitlines()
    assert again[:-3] == lines[:-3] and len(again) == len(lines)
    assert "none.yaml: No such file" in refused(capsys, "run", tmp_path / "none.yaml", "--output-dir", tmp_path / "out")


@pytest.mark.parametrize(
    ("then", "now", "message"),
    [
        ("--loss cross-entropy", "--loss cros-entropy", "--loss: cros-entropy; expected one of"),
        ("--label-smoothing 0.4", "--label-smoothing 4", "--label-smoothing: 4; expected"),
        ("--teacher-path trained", "--teacher-path traind", "--teacher-path traind; expected one of trained"),
        ("--teacher-keys 2", "--teacher-keys 0", "--teacher-keys: 0; expected a whole number of at least 1"),
    ],
)
def test_options_that_cannot_be_used_are_refused_first(then, now, message, tmp_path, capsys):
    grid = tmp_path / "grid.yaml"
    grid.write_text(TINY.read_text().replace(then, now))
    told = refused(capsys, "run", grid, "--output-dir", tmp_path / "out")
    assert told.startswith(f"experiments: error: {grid}: ") and message in told
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="children are found in /proc")
@pytest.mark.parametrize(
    ("number", "whom", "code"),
    [
        (signal.SIGKILL, "student", 1),
        (signal.SIGINT, "all", 130),
    ],
)
def test_a_student_or_all_ended_by_a_signal(number, whom, code, tmp_path):
    grid = tmp_path / "grid.yaml"
    text = TINY.read_text().replace("--total-updates 20", "--total-updates 2000").replace("--teacher-updates 2", "")
    text = text.replace('teachers: {trained: "--lr 0.05', 'teachers: {trained: "--teacher-updates 0 --lr 0.05')
    grid.write_text(text)
    command = [sys.executable, *RUN[1:], grid, "--output-dir", tmp_path / "out", "--jobs", "1"]
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
        assert "was ended by SIGKILL, as the system does where memory runs out" in told
    assert records.read_text().endswith("\n")


def _outcome(folder):
    """Records without their seconds, report, teacher and its log: what a killed grid must come to as well."""
    out = folder / "out"
    records = [json.loads(line) for line in (out / "runs.jsonl").read_text(encoding="utf-8").splitlines()]
    teacher = out / "digits.noise40.mlp-8" / "trained"
    assert not list(out.rglob("*.partial"))
    return (
        # Two programs append: their order may differ.
        sorted(json.dumps({key: value for key, value in one.items() if key != "seconds"}) for one in records),
        (out / "results.md").read_text(encoding="utf-8"),
        [(teacher / f"{name}.safetensors").read_bytes() for name in ("teacher", "teacher_last")],
        log_lines(teacher),
    )


@pytest.mark.very_slow
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere programs outlive a killed runner")
def test_sigkill_at_fifty_random_moments(tmp_path):
    """The runner is killed, and its programs with it; a run that ends before its kill is compared and begun again."""
    grid, work, rng = tmp_path / "grid.yaml", tmp_path / "killed", Random(1)
    grid.write_text(TINY.read_text().replace("--teacher-updates 2", "--teacher-updates 30"))
    arguments = ["run", grid, "--output-dir", "out"]
    start = time.monotonic()
    preloaded.run("experiments", arguments, tmp_path / "whole")
    seconds, whole = time.monotonic() - start, _outcome(tmp_path / "whole")
    kills, ends = 0, 0
    while kills < 50:
        running = preloaded.start("experiments", arguments, work)
        running.process.join(rng.uniform(0, 0.6 * seconds))
        running.process.kill()
        if running.end(expect=None).process.exitcode == 0:
            ends += 1
            assert _outcome(work) == whole
            shutil.rmtree(work)
        else:
            assert running.process.exitcode == -signal.SIGKILL, running.stderr
            kills += 1
    preloaded.run("experiments", arguments, work)
    assert _outcome(work) == whole
    assert ends < 25  # most kills interrupted work
    grid.write_text(grid.read_text().replace("seeds: [1, 2]", "seeds: [1, 3]"))
    preloaded.run("experiments", arguments, tmp_path / "other_seed")
    assert _outcome(tmp_path / "other_seed")[:2] != whole[:2]


def _student_process(parent):
    for path in Path("/proc").glob("[0-9]*"):
        try:
            own = (path / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
            command = (path / "cmdline").read_bytes()
        except OSError:
            continue
        if int(own[1]) == parent and b"image-students" in command:
            return int(path.name)
    raise LookupError(f"process {parent} has no students")


def test_options_of_the_other_kind_of_grid_are_refused(tmp_path, capsys):
    out = ["--output-dir", tmp_path / "out"]
    told = refused(capsys, "run", TINY, *out, "--raw-dir", tmp_path)
    assert f"--raw-dir: not for {TINY}, which is a grid of images" in told
    told = refused(capsys, "run", TINY.with_name("tiny_grid.yaml"), *out, "--data-dir", tmp_path)
    assert "--data-dir: not for" in told and "a grid of translation" in told
    told = refused(capsys, "run", TINY, *out, "--settings", "mnist")
    assert "--settings: 'mnist', expected some of digits.noise40.mlp-8" in told
    told = refused(capsys, "report", TINY, *out)
    assert f"--output-dir: {tmp_path / 'out'}, expected the folder of a grid that was run" in told
    assert not (tmp_path / "out").exists()


def test_the_commands_are_listed(tmp_path, capsys):
    assert main(["run", str(TINY), "--output-dir", str(tmp_path / "out"), "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "digits.noise40.mlp-8.teacher.trained\n  $ " in shown and "\n4 steps\n" in shown
    assert "image-students" in shown and not (tmp_path / "out").exists()
