"""``l2t-train-teacher``: train a teacher of loss functions for a fairseq translation model."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from fairseq_l2t.cli.entry import print_own_help, run_command, run_training

__all__ = ["main"]

_NAME = "l2t-train-teacher"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code (0; 1 the run failed; 2 bad options or files; 128 + signal)."""
    return run_command(_NAME, _run, arguments)


def _run(arguments: Sequence[str]) -> int:
    if print_own_help(_NAME, arguments):
        return 0
    # fairseq takes seconds to import.
    from fairseq_l2t.plugin.teacher_run import train_teacher

    return run_training(_NAME, lambda: train_teacher(arguments))


if __name__ == "__main__":
    sys.exit(main())
