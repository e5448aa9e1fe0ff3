"""``l2t-train-teacher``: train a teacher of loss functions for a fairseq translation model."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from fairseq_l2t.cli.entry import RUN_ERROR, USAGE_ERROR, fail, run_command

__all__ = ["main"]

_NAME = "l2t-train-teacher"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code (0; 1 the run failed; 2 bad options or files; 128 + signal)."""
    return run_command(_NAME, _run, arguments)


def _run(arguments: Sequence[str]) -> int:
    # fairseq takes seconds to import; a console script's --help must not pay for our other commands.
    from fairseq_l2t.kernels.twice_differentiable import NotTwiceDifferentiableError
    from fairseq_l2t.plugin.teacher_run import TeacherRun
    from fairseq_l2t.teaching.interruption import Interrupted
    from fairseq_l2t.unroll.student import NonFiniteError

    try:
        with TeacherRun.open(arguments) as run:
            run.run()
    except Interrupted as stop:
        print(f"{_NAME}: {stop}", file=sys.stderr)
        return stop.exit_code
    except NonFiniteError as error:
        return fail(_NAME, error, RUN_ERROR)
    # ValueError: options, teacher files and run states that cannot be used; OSError: paths.
    except (ValueError, OSError, NotTwiceDifferentiableError) as error:
        return fail(_NAME, error, USAGE_ERROR)
    except Exception as error:
        if type(error) is not Exception:
            raise
        return fail(_NAME, error, USAGE_ERROR)  # fairseq's way to say that data cannot be used
    return 0


if __name__ == "__main__":
    sys.exit(main())
