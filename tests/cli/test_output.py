"""Standard output that takes no more: one line on stderr, and an exit code that is not 0."""

import os

import pytest

from tests.cli.test_inspect import write_dictionary, write_teacher

pytestmark = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full on this system")


def to_full_disk(run_command, arguments, expect):
    """stderr of a command whose stdout is a full disk, buffered as for a user."""
    environment = {"OMP_NUM_THREADS": "1", **os.environ}
    environment.pop("PYTHONUNBUFFERED", None)
    with open("/dev/full", "w") as full:
        options = {"capture_output": False, "stdout": full, "stderr": -1, "env": environment}
        return run_command(arguments, expect, **options).stderr


def test_reports(run_command, tmp_path):
    teacher, dictionary = write_teacher(tmp_path / "teacher"), write_dictionary(tmp_path / "dict")
    (tmp_path / "text").write_text("a b c d e\n")
    (tmp_path / "other").write_text("a b c d e\n")
    for arguments, code in (
        (["l2t-inspect", teacher, "--dict", dictionary], 2),
        (["l2t-compare", "--help"], 1),
        (["l2t-classify", "--help"], 1),
        (["l2t-train-teacher", "--help"], 1),
        (["l2t-average", "--help"], 1),
    ):
        shown = to_full_disk(run_command, arguments, code)
        assert shown == f"{arguments[0]}: error: standard output: No space left on device\n"


@pytest.mark.slow
def test_the_log_of_a_training(run_command, data_bin, tmp_path):
    """The first line of the log that cannot be written ends the command; no traceback for each line."""
    from tests.end_to_end.settings import teacher_command

    arguments = ["l2t-train-teacher", *teacher_command(data_bin), "--save-dir", tmp_path / "run"]
    shown = to_full_disk(run_command, arguments, 2)
    assert shown.splitlines()[-1].startswith("l2t-train-teacher: error: ")
    assert "standard output" in shown and "Traceback" not in shown and shown.count("\n") == 1
