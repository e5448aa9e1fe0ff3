"""Teacher training by torchrun: the same bits with any number of processes, and processes that fail."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from fairseq_l2t.storage import load_run_state, load_teacher
from tests.end_to_end.settings import RUN_FOLDER, contents, log_lines, teacher_command

LIVES = ("--unroll-length", "4", "--lives-per-update", "2", "--holdout-lives", "2", "--teacher-updates", "3")
FILES = ("teacher.safetensors", "teacher_last.safetensors")
_LIMIT = 120


def start(data_bin, folder, processes, *more):
    """Start torchrun in a working folder."""
    folder.mkdir(exist_ok=True)
    script = Path(sys.executable).parent / "l2t-train-teacher"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    arguments = teacher_command(data_bin, *LIVES, "--skip-quick-check", *more)
    return subprocess.Popen(
        [*command, str(script), *arguments],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(data_bin, folder, processes, *more, expect=0):
    """Run torchrun to its end; return its standard output and error."""
    with start(data_bin, folder, processes, *more) as running:
        out, err = running.communicate(timeout=_LIMIT)
    assert (running.returncode == 0) == (expect == 0), err[-3000:]
    return out, err


def wait_for_lines(folder, count):
    end = time.monotonic() + _LIMIT
    while len(log_lines(folder / RUN_FOLDER)) < count:
        assert time.monotonic() < end
        time.sleep(0.05)


def worker(running, rank):
    """Return the process of a rank; torchrun's children are in the order of ranks."""
    children = psutil.Process(running.pid).children()
    of_rank = {child.environ()["RANK"]: child for child in children if "RANK" in child.environ()}
    return of_rank[str(rank)]


@pytest.fixture(scope="module")
def one_process(data_bin, tmp_path_factory):
    """The working folder of a run with one process; only to be read."""
    folder = tmp_path_factory.mktemp("one")
    run(data_bin, folder, 1)
    return folder


@pytest.mark.slow
def test_two_processes_give_the_bits_of_one(data_bin, one_process, tmp_path):
    out, _ = run(data_bin, tmp_path, 2)
    found, expected = contents(tmp_path / RUN_FOLDER), contents(one_process / RUN_FOLDER)
    assert {name: found[name] == expected[name] for name in FILES} == dict.fromkeys(FILES, True)
    assert log_lines(tmp_path / RUN_FOLDER) == log_lines(one_process / RUN_FOLDER)
    lines = log_lines(tmp_path / RUN_FOLDER)
    assert [len(line["lives"]) for line in lines] == [2, 2, 2]
    assert all(line["hypergradient_standard_error"] > 0 for line in lines)
    assert out.count("teacher: run/teacher.safetensors") == 1  # the first process alone tells


@pytest.mark.slow
def test_stopped_by_sigterm_and_resumed_with_another_number_of_processes(data_bin, one_process, tmp_path):
    with start(data_bin, tmp_path, 2) as running:
        wait_for_lines(tmp_path, 1)
        running.send_signal(signal.SIGTERM)
        running.communicate(timeout=_LIMIT)
    assert running.returncode != 0
    made = len(log_lines(tmp_path / RUN_FOLDER))
    assert 1 <= made < 3 and load_run_state(tmp_path / RUN_FOLDER)[1]["teacher_update"] == made
    run(data_bin, tmp_path, 1, "--resume")
    found, expected = contents(tmp_path / RUN_FOLDER), contents(one_process / RUN_FOLDER)
    assert {name: found[name] == expected[name] for name in FILES} == dict.fromkeys(FILES, True)


@pytest.mark.slow
def test_a_killed_process_ends_the_run_and_is_named(data_bin, tmp_path):
    with start(data_bin, tmp_path, 2, "--teacher-updates", "1000", "--worker-timeout", "20") as running:
        wait_for_lines(tmp_path, 1)
        worker(running, 1).kill()
        _, err = running.communicate(timeout=_LIMIT)
    assert running.returncode != 0
    assert "process 1 of 2 has ended or did not answer within --worker-timeout, 20 seconds" in err
    assert_whole(tmp_path)


@pytest.mark.very_slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_hangs_ends_the_run(data_bin, tmp_path, rank):
    """torchrun waits half a minute before it kills a process that does not end by itself."""
    with start(data_bin, tmp_path, 2, "--teacher-updates", "1000", "--worker-timeout", "10") as running:
        wait_for_lines(tmp_path, 1)
        worker(running, rank).suspend()
        begun = time.monotonic()
        _, err = running.communicate(timeout=_LIMIT)
    assert running.returncode != 0 and time.monotonic() - begun < 90
    expected = "process 1 of 2 has ended or did not answer" if rank else "process 0, or one it waits for, has ended"
    assert expected in err
    assert_whole(tmp_path)


def assert_whole(folder):
    """The files of a run are those of a whole teacher update."""
    state = load_run_state(folder / RUN_FOLDER)[1]
    load_teacher(folder / RUN_FOLDER / "teacher_last.safetensors")
    lines = (folder / RUN_FOLDER / "teacher_log.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(lines[-1])["teacher_update"] in (state["teacher_update"], state["teacher_update"] + 1)
    assert not [name for name in contents(folder / RUN_FOLDER) if name.endswith(".partial")]
