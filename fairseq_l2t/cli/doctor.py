"""``l2t-doctor``: checks of a student's hypergradients, with a remedy for each failed check."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence

from fairseq_l2t.cli.entry import RUN_ERROR, USAGE_ERROR, drop_output, fail, print_own_help, run_command

__all__ = ["main"]

_NAME = "l2t-doctor"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print one line per check; return the exit code (0; 1 a check failed; 2 bad options or data; 128 + signal)."""
    return run_command(_NAME, _run, arguments, log_to=sys.stderr, log_level="WARNING")


def _run(arguments: Sequence[str]) -> int:
    if print_own_help(_NAME, arguments):
        return 0
    # fairseq takes seconds to import.
    from fairseq_l2t.plugin.doctor.doctor import Doctor
    from fairseq_l2t.plugin.student.fairseq_student import FairseqStudent
    from fairseq_l2t.plugin.teacher_run_options import TeacherRunOptions

    begun = time.monotonic()
    made = failed = 0
    try:
        options = TeacherRunOptions.parse(arguments)
        for check in Doctor(FairseqStudent(options.student, refuse_modules=False)).checks():
            print(check, flush=True)
            made, failed = made + 1, failed + (not check.is_good)
    except BrokenPipeError:  # the reader of stdout has gone, as in `... --help | head`
        return drop_output()
    except OSError as error:
        if error.filename is None:  # of standard output
            raise
        return fail(_NAME, error, USAGE_ERROR)
    except ValueError as error:
        return fail(_NAME, error, USAGE_ERROR)
    except Exception as error:
        if type(error) is not Exception:
            raise
        return fail(_NAME, error, USAGE_ERROR)  # how fairseq reports data that cannot be used
    verdict = "hypergradients of this student are correct" if not failed else "hypergradients of this student are wrong"
    print(f"{failed} of {made} checks failed, {time.monotonic() - begun:.0f} s: {verdict}")
    return RUN_ERROR if failed else 0


if __name__ == "__main__":
    sys.exit(main())
