"""``python -O``, which drops every ``assert`` statement: the same files, the same refusals."""

import sys

import pytest

from tests.end_to_end.settings import RUN_FOLDER, contents, log_lines, teacher_command

REFUSALS = """
import sys
from fairseq_l2t.cli.train_teacher import main
assert False, "this line must not run: Python was started without -O"
for option, value in (("--unroll-length", "7"), ("--lr", "0"), ("--optimizer", "adamax"), ("--clip-norm", "nan"),
                      ("--teacher-kyes", "3"), ("--encoder-attention-heads", "3")):
    sys.stderr.write(f"{main([*sys.argv[1:], option, value])}\\n")
"""


@pytest.mark.slow
def test_same_teacher(data_bin, uninterrupted, tmp_path, run_command):
    command = [sys.executable, "-O", "-m", "fairseq_l2t.cli.train_teacher", *teacher_command(data_bin)]
    run_command(command, cwd=tmp_path)
    for name in ("teacher.safetensors", "teacher_last.safetensors"):
        assert contents(tmp_path / RUN_FOLDER)[name] == contents(uninterrupted / RUN_FOLDER)[name]
    assert log_lines(tmp_path / RUN_FOLDER) == log_lines(uninterrupted / RUN_FOLDER)


@pytest.mark.slow
def test_same_refusals(data_bin, tmp_path, run_command):
    result = run_command([sys.executable, "-O", "-c", REFUSALS, *teacher_command(data_bin)], cwd=tmp_path)
    lines = result.stderr.splitlines()
    errors = [(line, code) for line, code in zip(lines, lines[1:], strict=False) if "l2t-train-teacher: error:" in line]
    assert [code for _, code in errors] == ["2"] * 6, result.stderr
    named = ("--unroll-length", "--lr", "--optimizer", "--clip-norm", "--teacher-kyes", "--encoder-attention-heads")
    assert all(name in line for name, (line, _) in zip(named, errors, strict=True))
    assert not contents(tmp_path / RUN_FOLDER)
