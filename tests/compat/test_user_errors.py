"""Which errors end a command of fairseq in one line: those of this package's own classes, from any process."""

from types import SimpleNamespace

import pytest
from torch.multiprocessing.spawn import ProcessRaisedException

from fairseq_l2t.compat.user_errors import patch_command
from fairseq_l2t.kernels.twice_differentiable import NotTwiceDifferentiableError
from fairseq_l2t.storage import TeacherFileError
from fairseq_l2t.teaching.options.declaration import OptionError

WORKER = """

-- Process 1 terminated with the following error:
Traceback (most recent call last):
  File "worker.py", line 7, in work
    raise error
ValueError: the cause

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "worker.py", line 9, in work
    raise other
{}
"""


def from_worker(last_line):
    return ProcessRaisedException(WORKER.format(last_line), 1, 99)


def command_raising(error):
    def cli_main(modify_parser=None):
        raise error

    command = SimpleNamespace(__name__="fairseq_cli.eval_lm", cli_main=cli_main)
    patch_command(command)
    return command


@pytest.mark.parametrize(
    "error",
    [
        OptionError("--lr: 0"),
        TeacherFileError("--lr: 0"),
        from_worker("fairseq_l2t.teaching.options.declaration.OptionError: --lr: 0"),
    ],
    ids=["option", "file", "worker"],
)
def test_an_error_of_this_package_is_one_line(error, capsys):
    with pytest.raises(SystemExit) as ended:
        command_raising(error).cli_main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == "fairseq-eval-lm: error: --lr: 0\n"


@pytest.mark.parametrize(
    "error",
    [
        ValueError("--lr: 0"),
        FileNotFoundError("--lr: 0"),
        NotTwiceDifferentiableError("a module"),
        from_worker("ValueError: fairseq_l2t.teaching.options.declaration.OptionError: --lr: 0"),
        from_worker("fairseq_l2t.kernels.twice_differentiable.NotTwiceDifferentiableError: a module"),
        from_worker("RuntimeError: no memory"),
    ],
    ids=["value", "path", "fault", "worker's value", "worker's fault", "worker's memory"],
)
def test_other_errors_keep_their_traceback(error, capsys):
    with pytest.raises(type(error)) as raised:
        command_raising(error).cli_main()
    assert raised.value is error
    assert capsys.readouterr().err == ""


def test_a_second_call_wraps_nothing():
    command = command_raising(OptionError("--lr: 0"))
    once = command.cli_main
    patch_command(command)
    assert command.cli_main is once
