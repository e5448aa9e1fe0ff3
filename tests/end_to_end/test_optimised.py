"""Unusual surroundings: ``python -O``, another hash seed, no stdin, no stdout, a folder with spaces and umlauts.

The same files, the same refusals: ``-O`` drops every ``assert`` statement, a hash seed changes the order of sets.
"""

import os
import sys
from pathlib import Path

import pytest

import fairseq_l2t
from tests.end_to_end import preloaded
from tests.end_to_end.settings import (
    MODEL,
    RUN_FOLDER,
    TRAINING,
    checkpoint,
    contents,
    log_lines,
    same_tensors,
    teacher_command,
)

PLUGIN = Path(fairseq_l2t.__file__).parent
CLOSED = ["sh", "-c", 'exec "$@" <&- >&-', "sh", sys.executable, "-O", "-m"]
"""Runs a module without assertions, stdin and stdout."""

REFUSALS = """
import sys
from fairseq_l2t.cli.train_teacher import main
assert False, "this line must not run: Python was started without -O"
for option, value in (("--unroll-length", "7"), ("--lr", "0"), ("--optimizer", "adamax"), ("--clip-norm", "nan"),
                      ("--teacher-kyes", "3"), ("--encoder-attention-heads", "3")):
    sys.stderr.write(f"{main([*sys.argv[1:], option, value])}\\n")
"""


@pytest.fixture
def odd_folder(tmp_path):
    folder = tmp_path / "größerer Ordner \u65b0"
    folder.mkdir()
    return folder


def run_closed(run_command, module, arguments, folder):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "7"}
    return run_command([*CLOSED, module, *arguments], cwd=folder, env=environment)


@pytest.mark.slow
def test_same_teacher(data_bin, uninterrupted, odd_folder, run_command):
    run_closed(run_command, "fairseq_l2t.cli.train_teacher", teacher_command(data_bin), odd_folder)
    for name in ("teacher.safetensors", "teacher_last.safetensors"):
        assert contents(odd_folder / RUN_FOLDER)[name] == contents(uninterrupted / RUN_FOLDER)[name]
    assert log_lines(odd_folder / RUN_FOLDER) == log_lines(uninterrupted / RUN_FOLDER)


def separate_dictionaries(data_bin, folder):
    """Write a DATA_BIN of the same pairs with one dictionary for each language; return its path."""
    pieces = data_bin.parent / "pieces"
    splits = [f"--{split}pref={pieces / split}" for split in ("train", "valid")]
    options = ["--source-lang", "de", "--target-lang", "en", "--destdir", folder]
    preloaded.run("fairseq-preprocess", [*splits, *options], folder.parent)
    assert (folder / "dict.de.txt").read_text("utf-8") != (folder / "dict.en.txt").read_text("utf-8")
    return folder


def last_checkpoint(folder):
    state = checkpoint(folder / "student" / "checkpoint_last.pt")
    return state["model"], state["task_state"]["teaching"]


@pytest.mark.slow
def test_same_student(data_bin, odd_folder, tmp_path, run_command):
    """Also with separate dictionaries and two data workers, where the tests beside it have a joined one and none."""
    data = separate_dictionaries(data_bin, odd_folder / "data bin")
    preloaded.run("l2t-train-teacher", teacher_command(data, "--teacher-updates", "1"), odd_folder)
    command = [data, *MODEL, *TRAINING, "--user-dir", PLUGIN, "--task", "l2t_dlf", "--save-dir", "student"]
    command += ["--criterion", "dynamic_teacher_loss", "--max-update", "12", "--no-epoch-checkpoints"]
    command += ["--teacher-path", odd_folder / RUN_FOLDER / "teacher.safetensors"]
    run_closed(run_command, "fairseq_cli.train", [*command, "--num-workers", "2"], odd_folder)
    weights, state = last_checkpoint(odd_folder)
    found = {}
    for name, more in {"usual": [], "control": ["--cross-entropy-mix", "1"]}.items():
        preloaded.run("fairseq-train", [*command, "--num-workers", "0", *more], tmp_path / name)
        found[name], other_state = last_checkpoint(tmp_path / name)
        assert (other_state == state) == (name == "usual")
    assert same_tensors(weights, found["usual"])
    assert not same_tensors(weights, found["control"])


@pytest.mark.slow
def test_same_refusals(data_bin, tmp_path, run_command):
    result = run_command([sys.executable, "-O", "-c", REFUSALS, *teacher_command(data_bin)], cwd=tmp_path)
    lines = result.stderr.splitlines()
    errors = [(line, code) for line, code in zip(lines, lines[1:], strict=False) if "l2t-train-teacher: error:" in line]
    assert [code for _, code in errors] == ["2"] * 6, result.stderr
    named = ("--unroll-length", "--lr", "--optimizer", "--clip-norm", "--teacher-kyes", "--encoder-attention-heads")
    assert all(name in line for name, (line, _) in zip(named, errors, strict=True))
    assert not (tmp_path / RUN_FOLDER).exists()
