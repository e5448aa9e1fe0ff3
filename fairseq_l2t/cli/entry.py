"""Shared by the training commands: their log, exit codes, and signals that arrive before a run handles them."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TextIO

from fairseq_l2t import __version__
from fairseq_l2t.compat.harmless_messages import silence_harmless_messages

__all__ = ["RUN_ERROR", "USAGE_ERROR", "fail", "print_own_help", "run_command", "run_training", "version_of"]

USAGE_ERROR, RUN_ERROR = 2, 1


def run_command(
    name: str,
    run: Callable[[Sequence[str]], int],
    arguments: Sequence[str] | None,
    *,
    log_to: TextIO | None = None,
    log_level: str = "INFO",
) -> int:
    """Return the exit code of ``run``, or 128 + the number of a signal; answer ``--version``.

    Args:
        name: of the command.
        run: is called with the arguments.
        arguments: those of the command; None: the program's own.
        log_to: stream of the log; None: stdout, fairseq's way.
        log_level: level of the log without the environment variable LOGLEVEL.
    """
    given = sys.argv[1:] if arguments is None else arguments
    if "--version" in given:
        print(version_of(name))
        return 0
    logging.basicConfig(
        format="%(asctime)s | %(levelname)s | %(name)s | %(message)s",
        datefmt="%Y-%m-%d %H:%M:%S",
        # Of the processes that torchrun starts, the first one tells what all do.
        level=os.environ.get("LOGLEVEL", log_level).upper() if rank_of_torchrun() == 0 else logging.ERROR,
        handlers=[_LogHandler(log_to or sys.stdout)],
    )
    silence_harmless_messages()
    try:
        with _terminable():
            return end_output(name, run(given))
    except SystemExit as end:  # --help of argparse
        if isinstance(end.code, int):
            end.code = end_output(name, end.code)
        raise
    except BrokenPipeError:  # the reader of stdout has gone, as in `... --help | head`
        return drop_output()
    except OSError as error:
        if error.filename is not None:
            raise
        drop_output()
        return fail(name, f"standard output: {error.strerror}", RUN_ERROR)
    except (KeyboardInterrupt, _Terminated) as stop:  # outside of updates: those handle the signal themselves
        number = signal.SIGINT if isinstance(stop, KeyboardInterrupt) else signal.SIGTERM
        print(f"{name}: stopped by {number.name} outside of an update", file=sys.stderr)
        return 128 + number


def print_own_help(name: str, arguments: Sequence[str]) -> bool:
    """Print our options if ``--help`` is given, without the seconds that the import of fairseq takes; return whether.

    ``--help-all`` needs fairseq, whose options it prints too: it is left to the parser.
    """
    from fairseq_l2t.teaching.options.teacher_help import HELP_ALL, asks_for_help, teacher_help

    if not asks_for_help(arguments) or HELP_ALL in arguments:
        return False
    print(teacher_help(name), flush=True)
    return True


def version_of(name: str) -> str:
    """Return the line that ``--version`` prints."""
    return f"{name} (fairseq_l2t {__version__})"


class _Terminated(BaseException):
    """SIGTERM; like `KeyboardInterrupt`, no error."""


@contextmanager
def _terminable() -> Iterator[None]:
    """Raise `_Terminated` at SIGTERM, which otherwise ends a program without a word."""

    def on_signal(number: int, frame: object) -> None:
        raise _Terminated

    before = signal.signal(signal.SIGTERM, on_signal)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class _LogHandler(logging.StreamHandler[TextIO]):
    """Log to a stream; a stream that takes no more ends the command, instead of a traceback for each line."""

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror, "standard output") from None
        super().handleError(record)


def end_output(name: str, code: int) -> int:
    """Return the exit code of a command after the rest of its output is written: 1 if that fails.

    Args:
        name: of the command.
        code: what the command would return.
    """
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        closed_pipe = drop_output()
        if isinstance(error, BrokenPipeError):
            return code or closed_pipe
        if code == 0:
            return fail(name, f"standard output: {error.strerror}", RUN_ERROR)
    return code


def drop_output() -> int:
    """Discard the output that standard output no longer takes; return the exit code of a closed pipe."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python writes the rest there when it ends
    return 128 + signal.SIGPIPE


def run_training(name: str, train: Callable[[], object]) -> int:
    """Return the exit code of a training that `run_command` runs, each failure told in one line on stderr.

    Args:
        name: of the command.
        train: raises what a training raises.
    """
    from fairseq_l2t.kernels.twice_differentiable import NotTwiceDifferentiableError
    from fairseq_l2t.teaching.interruption import Interrupted
    from fairseq_l2t.teaching.processes import WorkerError
    from fairseq_l2t.unroll.student import NonFiniteError

    try:
        train()
    except Interrupted as stop:
        print(f"{name}: {stop}", file=sys.stderr)
        return stop.exit_code
    except (NonFiniteError, WorkerError) as error:
        return fail(name, error, RUN_ERROR)
    except BrokenPipeError:  # the reader of stdout has gone, as in `... --help | head`
        return drop_output()
    # ValueError: options, data, teacher files and run states that cannot be used; OSError: paths.
    except (ValueError, OSError, NotTwiceDifferentiableError) as error:
        return fail(name, error, USAGE_ERROR)
    except RuntimeError as error:
        if "allocate memory" not in str(error):  # how torch reports it on a CPU
            raise
        return fail(name, f"not enough memory: {str(error).splitlines()[0]}", RUN_ERROR)
    except Exception as error:
        if type(error) is not Exception:
            raise
        return fail(name, error, USAGE_ERROR)  # fairseq's way to say that data cannot be used
    return 0


def fail(name: str, error: Exception | str, code: int) -> int:
    """Print what went wrong on stderr, in one line; return ``code``."""
    process = f"process {rank_of_torchrun()}: " if rank_of_torchrun() else ""
    print(f"{name}: error: {process}{error}", file=sys.stderr)
    return code


def rank_of_torchrun() -> int:
    """Return the number of this process among those that torchrun started; 0 without torchrun."""
    return int(os.environ.get("RANK", "0"))
