"""Entry of a program: errors in one line, and exit codes."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from typing import NoReturn

from fairseq_l2t.cli.entry import RUN_ERROR, USAGE_ERROR, fail
from fairseq_l2t.pairs.parallel_text import BadInput
from fairseq_l2t.pairs.programs import StepFailed

__all__ = ["run_program"]


def run_program(name: str, work: Callable[[], None]) -> int:
    """Do the work of the program ``name``; return its exit code.

    0: done; 1: a step failed; 2: an option, a file or a folder that cannot be used; 128 + N: signal N.

    An error is told in one line. A signal is answered at once in one line, because programs under way may take minutes
    to save what they have. It ends the work like an exception, so that these programs end too.
    """
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    # A shell starts background programs with SIGINT ignored.
    taken = [number for number, handler in before.items() if handler is not signal.SIG_IGN]
    for number in taken:
        signal.signal(number, _Answer(name))
    try:
        return _run(name, work)
    finally:
        for number in taken:
            signal.signal(number, before[number])


def _run(name: str, work: Callable[[], None]) -> int:
    start = time.monotonic()
    try:
        work()
        print(f"wall time: {time.monotonic() - start:.0f} s", flush=True)
    except BrokenPipeError:
        # The reader of our output is gone. Python would tell again, as it ends, that it cannot write there.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except StepFailed as error:
        return fail(name, error, RUN_ERROR)
    except BadInput as error:
        return fail(name, error, USAGE_ERROR)
    except OSError as error:
        where = f"{error.filename}: {error.strerror}" if error.filename is not None else str(error)
        return fail(name, where, USAGE_ERROR)
    except _Stopped as stop:
        print(f"{name}: stopped by {signal.Signals(stop.number).name}; the same command goes on", file=sys.stderr)
        return 128 + stop.number
    return 0


class _Stopped(BaseException):
    """A signal; like `KeyboardInterrupt`, no error."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


class _Answer:
    """Answers the first signal in words; every signal ends the work."""

    def __init__(self, name: str) -> None:
        self._name, self._is_first = name, True

    def __call__(self, number: int, frame: object) -> NoReturn:
        if self._is_first:
            self._is_first = False
            print(
                f"{self._name}: {signal.Signals(number).name}: stopping when the programs under way have saved their "
                "work; a second signal stops at once",
                file=sys.stderr,
                flush=True,
            )
        raise _Stopped(number)
