"""What our training commands share: their log, and the signals that arrive before a run handles them itself."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence

__all__ = ["RUN_ERROR", "USAGE_ERROR", "fail", "run_command"]

USAGE_ERROR, RUN_ERROR = 2, 1


def run_command(name: str, run: Callable[[Sequence[str]], int], arguments: Sequence[str] | None) -> int:
    """Return the exit code of ``run``, or 128 + SIGINT; logs go to stdout, fairseq's way.

    Args:
        name: of the command.
        run: is called with the arguments.
        arguments: those of the command; None: the program's own.
    """
    logging.basicConfig(
        format="%(asctime)s | %(levelname)s | %(name)s | %(message)s",
        datefmt="%Y-%m-%d %H:%M:%S",
        level=os.environ.get("LOGLEVEL", "INFO").upper(),
        stream=sys.stdout,
    )
    try:
        return run(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:  # outside of updates: those handle the signal themselves
        print(f"{name}: stopped by SIGINT outside of an update", file=sys.stderr)
        return 128 + signal.SIGINT


def fail(name: str, error: Exception | str, code: int) -> int:
    """Tell on stderr, in one line, what went wrong; return ``code``."""
    print(f"{name}: error: {error}", file=sys.stderr)
    return code
