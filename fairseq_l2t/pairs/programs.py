"""Runs console scripts as child processes that end with their parent."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

__all__ = ["StepFailed", "console_script", "die_with_parent"]

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


class StepFailed(Exception):
    """A command that failed; the message holds the command and the end of its log."""


def console_script(name: str) -> str:
    """Return the path of a console script in the environment of this interpreter.

    Raises:
        StepFailed: the environment has no such script.
    """
    path = Path(sys.executable).parent / name
    if not path.exists():
        raise StepFailed(f"{path}: no such program; install the package into this environment (make install)")
    return str(path)


def die_with_parent() -> Callable[[], None] | None:
    """Return a ``preexec_fn`` for `subprocess` that ends the child when this process ends, even by SIGKILL.

    Without it a killed experiment leaves trainings running, and the next experiment starts them a second time in the
    same folders. The child gets SIGKILL, because a program may take long to end after SIGTERM.

    Returns:
        None on systems other than Linux, which do not have ``PR_SET_PDEATHSIG`` (``man 2 prctl``).
    """
    if _LIBC is None:
        return None
    libc = _LIBC
    parent = os.getpid()

    def request_signal() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # the parent ended before the request
            os._exit(1)

    return request_signal
