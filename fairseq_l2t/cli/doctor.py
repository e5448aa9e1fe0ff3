"""``l2t-doctor``: checks of a student's hypergradients, with a remedy for each failed check."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Sequence

from fairseq_l2t.cli.entry import RUN_ERROR, USAGE_ERROR, drop_output, end_output, fail
from fairseq_l2t.compat.harmless_messages import silence_harmless_messages

__all__ = ["main"]

_NAME = "l2t-doctor"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print one line per check; return the exit code (0; 1 a check failed; 2 bad options or data; 128 + signal)."""
    silence_harmless_messages()
    logging.basicConfig(level=os.environ.get("LOGLEVEL", "WARNING").upper(), stream=sys.stderr)
    try:
        return end_output(_NAME, _run(sys.argv[1:] if arguments is None else arguments))
    except KeyboardInterrupt:
        print(f"{_NAME}: stopped by SIGINT", file=sys.stderr)
        return 128 + signal.SIGINT


def _run(arguments: Sequence[str]) -> int:
    # fairseq takes seconds to import; a console script's --help must not pay for our other commands.
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
    except (ValueError, OSError) as error:
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
