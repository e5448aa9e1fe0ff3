"""``l2t-average``: the average of several checkpoints of a student, with the options of fairseq's script."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from fairseq_l2t.cli.entry import USAGE_ERROR, fail, run_command
from fairseq_l2t.cli.one_line_parser import OneLineParser

__all__ = ["main", "options_of"]

_NAME = "l2t-average"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code (0; 1 standard output takes no more; 2 bad options or files)."""
    return run_command(_NAME, _run, arguments)


def _run(arguments: Sequence[str]) -> int:
    options = options_of(arguments)
    # fairseq takes seconds to import; --help must not pay for it.
    from fairseq_l2t.plugin.averaging import last_checkpoints, write_average

    count = options.num_epoch_checkpoints or options.num_update_checkpoints
    try:
        paths = options.inputs
        if count:
            by_updates = options.num_update_checkpoints is not None
            paths = last_checkpoints(paths[0], count, by_updates=by_updates, upper_bound=options.checkpoint_upper_bound)
        write_average(paths, options.output)
    except ValueError as error:
        return fail(_NAME, error, USAGE_ERROR)
    except OSError as error:
        return fail(_NAME, f"{error.filename}: {error.strerror}", USAGE_ERROR)
    print(f"{options.output}: average of {', '.join(paths)}")
    return 0


def options_of(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse and check a command line; an invalid one ends the program with code 2."""
    parser = _parser()
    options = parser.parse_args(arguments)
    _refuse_combinations(parser, options)
    return options


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog=_NAME,
        description="Average the weights of several checkpoints of one student. The result also contains the student's "
        "state and everything else of the checkpoint with the most updates.",
    )
    parser.add_argument(
        "--inputs", required=True, nargs="+", metavar="PATH", help="checkpoints, or with --num-*-checkpoints one folder"
    )
    parser.add_argument("--output", required=True, metavar="FILE", help="the checkpoint to write")
    last = parser.add_mutually_exclusive_group()
    last.add_argument(
        "--num-epoch-checkpoints",
        type=_positive,
        metavar="N",
        help="average the last N files checkpointEPOCH.pt of the folder; at least 1",
    )
    last.add_argument(
        "--num-update-checkpoints",
        type=_positive,
        metavar="N",
        help="average the last N files checkpoint_EPOCH_UPDATE.pt of the folder; at least 1",
    )
    parser.add_argument(
        "--checkpoint-upper-bound",
        type=_positive,
        metavar="N",
        help="last epoch or update that the two options above use; at least 1 (default: no limit)",
    )
    return parser


def _positive(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}; expected a whole number of at least 1")
    return number


def _refuse_combinations(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    by_number = options.num_epoch_checkpoints or options.num_update_checkpoints
    if by_number and len(options.inputs) != 1:
        parser.error(f"--inputs: {len(options.inputs)} paths; --num-*-checkpoints expects one folder")
    if options.checkpoint_upper_bound and not by_number:
        parser.error(
            f"--checkpoint-upper-bound: {options.checkpoint_upper_bound}; expected together with "
            "--num-epoch-checkpoints or --num-update-checkpoints"
        )


if __name__ == "__main__":
    sys.exit(main())
