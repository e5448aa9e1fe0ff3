"""Entry of a program: errors in one line, and exit codes."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable

from fairseq_l2t.pairs.parallel_text import BadInput
from fairseq_l2t.pairs.programs import StepFailed

__all__ = ["run_program"]


def run_program(name: str, work: Callable[[], None]) -> int:
    """Do the work of the program ``name``; return its exit code: 0, 1 after an error, 128 + the signal's number.

    An error is told in one line. SIGTERM ends the work like an exception, so that its child programs end too.
    """
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    start = time.monotonic()
    try:
        work()
        print(f"wall time: {time.monotonic() - start:.0f} s", flush=True)
    except BrokenPipeError:
        # The reader of our output is gone. Python would tell again, as it ends, that it cannot write there.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except (BadInput, StepFailed) as error:
        print(f"{name}: error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        where = f"{error.filename}: {error.strerror}" if error.filename is not None else str(error)
        print(f"{name}: error: {where}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{name}: stopped by SIGINT; the same command goes on", file=sys.stderr)
        return 128 + signal.SIGINT
    return 0
