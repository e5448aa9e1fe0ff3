"""Console scripts run as child processes that end with their parent."""

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
    """A command ended with an error; the message holds the command and the end of its log."""


def console_script(name: str) -> str:
    """The path of a console script in the environment that runs this program.

    Raises:
        StepFailed: there is none.
    """
    path = Path(sys.executable).parent / name
    if not path.exists():
        raise StepFailed(f"{path}: no such program; install the package into this environment (make install)")
    return str(path)


def die_with_parent() -> Callable[[], None] | None:
    """Return what a new child calls before its program starts, so that a SIGKILL of this process ends it too.

    Otherwise a killed experiment would leave trainings behind that the next one starts a second time in the same
    folders. SIGKILL, since a program may take its time after a SIGTERM. Linux alone has it (``man 2 prctl``).
    """
    if _LIBC is None:
        return None
    parent = os.getpid()

    def ask() -> None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before it was asked for
            os._exit(1)

    return ask
