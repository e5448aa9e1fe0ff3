"""``l2t-train-teacher``: train a teacher of loss functions for a fairseq translation model."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Sequence

__all__ = ["main"]

_USAGE_ERROR, _RUN_ERROR = 2, 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code (0; 1 the run failed; 2 bad options or files; 128 + signal)."""
    logging.basicConfig(
        format="%(asctime)s | %(levelname)s | %(name)s | %(message)s",
        datefmt="%Y-%m-%d %H:%M:%S",
        level=os.environ.get("LOGLEVEL", "INFO").upper(),
        stream=sys.stdout,
    )
    try:
        return _run(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:  # before the first teacher update: from then on the run handles the signal itself
        print("l2t-train-teacher: stopped by SIGINT before the first update", file=sys.stderr)
        return 128 + signal.SIGINT


def _run(arguments: Sequence[str]) -> int:
    # fairseq takes seconds to import; a console script's --help must not pay for our other commands.
    from fairseq_l2t.core import NonFiniteError
    from fairseq_l2t.core.twice_differentiable import NotTwiceDifferentiableError
    from fairseq_l2t.plugin.teacher_run import TeacherRun
    from fairseq_l2t.storage import Interrupted

    try:
        with TeacherRun.open(arguments) as run:
            run.run()
    except Interrupted as stop:
        print(f"l2t-train-teacher: {stop}", file=sys.stderr)
        return stop.exit_code
    except NonFiniteError as error:
        return _fail(error, _RUN_ERROR)
    # ValueError: options, teacher files and run states that cannot be used; OSError: paths.
    except (ValueError, OSError, NotTwiceDifferentiableError) as error:
        return _fail(error, _USAGE_ERROR)
    except Exception as error:
        if type(error) is not Exception:
            raise
        return _fail(error, _USAGE_ERROR)  # fairseq's way to say that data cannot be used
    return 0


def _fail(error: Exception, code: int) -> int:
    print(f"l2t-train-teacher: error: {error}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
