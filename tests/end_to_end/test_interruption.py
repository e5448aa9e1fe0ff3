"""Runs of teacher training that are killed, stopped, and resumed: the same files to the last bit."""

import json
import re
import shutil
import signal
import statistics
import time
from random import Random

import pytest

from fairseq_l2t.storage import load_run_state, load_teacher
from tests.end_to_end import preloaded
from tests.end_to_end.settings import RUN_FOLDER, TEACHER_UPDATES, contents, log_lines, teacher_command

TEACHER_FILES = ("teacher.safetensors", "teacher_last.safetensors")
COMMAND = "l2t-train-teacher"
OF_IMAGES = [
    *("train-teacher", "--train-limit", "200", "--label-noise", "0.4", "--student", "mlp-8", "--batch-size", "20"),
    *("--lr", "0.05", "--total-updates", "40", "--validate-interval-updates", "10", "--teacher-keys", "3"),
    *("--save-dir", RUN_FOLDER),
]
"""The arguments of l2t-classify."""


def assert_same_outcome(folder, uninterrupted):
    """Teachers to the byte, the log but for its seconds; nothing half-written is left."""
    files, expected = contents(folder / RUN_FOLDER), contents(uninterrupted / RUN_FOLDER)
    assert {name: files[name] == expected[name] for name in TEACHER_FILES} == dict.fromkeys(TEACHER_FILES, True)
    assert log_lines(folder / RUN_FOLDER) == log_lines(uninterrupted / RUN_FOLDER)
    assert not [name for name in files if name.endswith(".partial")]


def resume(data_bin, folder, *more, expect=0):
    return preloaded.run(COMMAND, teacher_command(data_bin, "--resume", *more), folder, expect=expect)


def update_seconds(folder):
    """What a teacher update takes here, by the log of a run."""
    log = (folder / RUN_FOLDER / "teacher_log.jsonl").read_text(encoding="utf-8")
    return statistics.median(json.loads(line)["seconds"] for line in log.splitlines())


def kill_at_random(command, arguments, folder, kills, rng, seconds):
    """Start (again) and kill, up to ``kills`` times; return at how many lines of the log each kill came.

    Each comes up to an update later than the start of the first or second update; fewer, should the run be done.
    """
    run_folder, hits = folder / RUN_FOLDER, []
    for attempt in range(kills):
        running = preloaded.start(command, [*arguments, "--resume-or-start"], folder)
        if attempt > 0:  # the first one dies right after its start
            lines = len(log_lines(run_folder)) + rng.randint(0, 1)
            while running.is_alive and not (
                len(log_lines(run_folder)) >= lines and "life of a student" in running.stdout + running.stderr
            ):
                time.sleep(0.002)
            time.sleep(rng.uniform(0, seconds))
        running.process.kill()
        if running.end(expect=None).process.exitcode == 0:
            break
        assert running.process.exitcode == -signal.SIGKILL
        hits.append(len(log_lines(run_folder)))
    return hits


@pytest.mark.slow
def test_sigkill_at_random_moments(data_bin, uninterrupted, tmp_path):
    arguments = teacher_command(data_bin)
    hits = kill_at_random(COMMAND, arguments, tmp_path / "work", 5, Random(2), update_seconds(uninterrupted))
    assert hits[0] == 0
    assert len(hits) > 2
    assert len(set(hits)) > 1, hits  # the kills did come at different stages
    resume(data_bin, tmp_path / "work")
    assert_same_outcome(tmp_path / "work", uninterrupted)
    assert len(log_lines(tmp_path / "work" / RUN_FOLDER)) == TEACHER_UPDATES
    preloaded.run(COMMAND, teacher_command(data_bin, "--seed", "4"), tmp_path / "other_seed")
    whole, other = (folder / RUN_FOLDER for folder in (uninterrupted, tmp_path / "other_seed"))
    for name in TEACHER_FILES:
        assert not load_teacher(whole / name).teacher.values.equal(load_teacher(other / name).teacher.values)


@pytest.mark.very_slow
@pytest.mark.parametrize("command", [COMMAND, "l2t-classify"])
def test_sigkill_at_fifty_random_moments(command, data_bin, tmp_path):
    arguments = [*(teacher_command(data_bin) if command == COMMAND else OF_IMAGES), "--teacher-updates", "150"]
    preloaded.run(command, arguments, tmp_path / "whole")
    hits = kill_at_random(command, arguments, tmp_path / "killed", 50, Random(1), update_seconds(tmp_path / "whole"))
    assert len(hits) == 50
    assert len(set(hits)) > 10, hits
    preloaded.run(command, [*arguments, "--resume"], tmp_path / "killed")
    assert_same_outcome(tmp_path / "killed", tmp_path / "whole")
    preloaded.run(command, [*arguments, "--teacher-updates", "2", "--seed", "4"], tmp_path / "other_seed")
    control, whole = (log_lines(tmp_path / name / RUN_FOLDER)[:2] for name in ("other_seed", "whole"))
    assert len(control) == 2 and control != whole


@pytest.mark.slow
def test_stopped_by_sigterm_and_sigint(data_bin, uninterrupted, tmp_path):
    folder = tmp_path / "work"
    for number, lines in ((signal.SIGTERM, 1), (signal.SIGINT, 4)):
        running = preloaded.start(COMMAND, teacher_command(data_bin, "--resume-or-start"), folder)
        running.wait_until(lambda lines=lines: len(log_lines(folder / RUN_FOLDER)) >= lines)
        running.signal(number)
        running.end(expect=128 + number)
        stopped_at = len(log_lines(folder / RUN_FOLDER))
        assert lines <= stopped_at < TEACHER_UPDATES
        assert load_run_state(folder / RUN_FOLDER)[1]["teacher_update"] == stopped_at
        assert running.stderr.endswith(f"l2t-train-teacher: stopped by {number.name}; --resume continues\n")
        assert "Traceback" not in running.stderr
    resume(data_bin, folder)
    assert_same_outcome(folder, uninterrupted)


@pytest.mark.slow
def test_second_sigterm_stops_at_once(data_bin, tmp_path):
    folder = tmp_path / "work"
    # One window is long enough that the second signal comes inside it.
    arguments = teacher_command(data_bin, "--total-updates", "100", "--unroll-length", "49", "--teacher-updates", "4")
    running = preloaded.start(COMMAND, arguments, folder)
    running.wait_until(lambda: " 1 / 4 " in running.stdout)
    running.signal(signal.SIGTERM)
    told = re.compile(r"SIGTERM: stopping after this teacher update, about \d+ s left; a second signal stops at once")
    running.wait_until(lambda: told.search(running.stdout))
    running.signal(signal.SIGTERM)
    running.end(expect=128 + signal.SIGTERM)
    assert len(log_lines(folder / RUN_FOLDER)) == 1  # the update under way was not finished
    assert load_run_state(folder / RUN_FOLDER)[1]["teacher_update"] == 1
    load_teacher(folder / RUN_FOLDER / "teacher_last.safetensors")
    running = preloaded.start(COMMAND, [*arguments, "--resume"], folder)
    running.wait_until(lambda: "resumed at teacher update 1" in running.stdout)
    # Ctrl-C before the first update of this process: one line, no traceback.
    running.signal(signal.SIGINT)
    running.end(expect=128 + signal.SIGINT)
    assert "Traceback" not in running.stderr
    assert running.stderr.splitlines()[-1].startswith("l2t-train-teacher: stopped by SIGINT")


def refused(arguments, folder):
    """Run a command that is refused; return its error, having looked that no file has changed."""
    before = contents(folder / RUN_FOLDER)
    ended = preloaded.run(COMMAND, arguments, folder, expect=2)
    assert contents(folder / RUN_FOLDER) == before
    return ended.stderr.splitlines()[-1].removeprefix("l2t-train-teacher: error: ")


@pytest.mark.slow
def test_finished_run(data_bin, uninterrupted, tmp_path):
    folder = tmp_path / "work"
    shutil.copytree(uninterrupted, folder)
    before = contents(folder / RUN_FOLDER)
    again = refused(teacher_command(data_bin), folder)
    expected = "--save-dir: run contains a run of teacher training; give --resume to continue it, or another folder"
    assert again == expected
    changed = refused(teacher_command(data_bin, "--resume", "--teacher-lr", "0.2"), folder)
    assert changed == "--resume: the run was started with other options: --teacher-lr 0.1 then, 0.2 now"
    resume(data_bin, folder)
    assert contents(folder / RUN_FOLDER) == before
    resume(data_bin, folder, "--teacher-updates", str(TEACHER_UPDATES + 1))
    lines = log_lines(folder / RUN_FOLDER)
    assert lines[:-1] == log_lines(uninterrupted / RUN_FOLDER)
    assert lines[-1]["teacher_update"] == TEACHER_UPDATES + 1


def test_damaged_state_and_folder_in_use(data_bin, uninterrupted, tmp_path):
    folder = tmp_path / "work"
    shutil.copytree(uninterrupted, folder)
    newest = folder / RUN_FOLDER / "run_state.safetensors"
    newest.write_bytes(newest.read_bytes()[:1000])
    running = preloaded.start(COMMAND, teacher_command(data_bin, "--resume"), folder)
    running.wait_until(lambda: "| WARNING |" in running.stdout)
    running.signal(signal.SIGSTOP)  # lest it be done before the other one has started
    second = preloaded.run(COMMAND, teacher_command(data_bin, "--resume"), folder, expect=2)
    assert f"another run (process {running.process.pid}) is using this folder" in second.stderr
    running.signal(signal.SIGCONT)
    running.end()
    assert f"resuming from {RUN_FOLDER}/run_state_previous.safetensors" in running.stdout
    assert "resumed at teacher update 7" in running.stdout
    assert_same_outcome(folder, uninterrupted)


def swap_lines(path, first, second):
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    lines[first], lines[second] = lines[second], lines[first]
    path.write_text("".join(lines), encoding="utf-8")


def test_resumed_under_something_else(data_bin, uninterrupted, tmp_path):
    """Two lines of a dictionary exchanged, another dev pair, another folder: nothing is written."""
    folder, other = tmp_path / "work", tmp_path / "bin"
    shutil.copytree(uninterrupted, folder)
    shutil.copytree(data_bin, other)
    more = ("--resume", "--teacher-updates", str(TEACHER_UPDATES + 1))
    for language in ("de", "en"):
        for kind in ("bin", "idx"):
            shutil.copy(data_bin / f"test.de-en.{language}.{kind}", other / f"valid.de-en.{language}.{kind}")
    told = refused(teacher_command(other, *more), folder)
    assert told.startswith("--resume: the run was started with other content of the dev data (SHA-256 ")
    assert told.endswith(" now); give --allow-other-data to continue with it")
    allowed = preloaded.run(COMMAND, teacher_command(other, *more, "--allow-other-data"), folder)
    assert "--allow-other-data: the run continues with other content of the dev data" in allowed.stdout
    swap_lines(other / "dict.en.txt", 5, 6)
    told = refused(teacher_command(other, *more, "--allow-other-data"), folder)
    assert told.startswith("--resume: the run was started with other content of the target dictionary (SHA-256 ")
    assert "--allow-other-data" not in told
    told = refused([*teacher_command(data_bin, *more), "--save-dir", "ruin"], folder)
    assert told.startswith("--resume: --save-dir ruin contains no saved run of teacher training")
    assert not (folder / "ruin").exists()
