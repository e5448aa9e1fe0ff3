"""``l2t-classify``: teachers of loss functions for image classifiers, and students under them; without fairseq."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence

from fairseq_l2t.cli.entry import RUN_ERROR, USAGE_ERROR, fail, run_command
from fairseq_l2t.cli.one_line_parser import OneLineParser

__all__ = ["command_parser", "main"]

_NAME = "l2t-classify"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code (0; 1 the run failed; 2 bad options or files; 128 + signal)."""
    return run_command(_NAME, _run, arguments)


def _run(arguments: Sequence[str]) -> int:
    from fairseq_l2t.kernels.twice_differentiable import NotTwiceDifferentiableError
    from fairseq_l2t.teaching.interruption import Interrupted
    from fairseq_l2t.unroll.student import NonFiniteError

    options = command_parser().parse_args(arguments)
    try:
        _COMMANDS[options.command](options)
    except Interrupted as stop:
        print(f"{_NAME}: {stop}", file=sys.stderr)
        return stop.exit_code
    except NonFiniteError as error:
        return fail(_NAME, error, RUN_ERROR)
    # ValueError: options, data, teacher files and run states that cannot be used; OSError: paths.
    except (ValueError, OSError, NotTwiceDifferentiableError) as error:
        return fail(_NAME, error, USAGE_ERROR)
    except RuntimeError as error:
        if "allocate memory" not in str(error):  # torch's way to say so on a CPU
            raise
        return fail(_NAME, f"not enough memory: {str(error).splitlines()[0]}", RUN_ERROR)
    return 0


def command_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    from fairseq_l2t.classification import options as own

    parser = OneLineParser(prog=_NAME, description=__doc__.partition(": ")[2])
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=OneLineParser)
    formatter = {"allow_abbrev": False}
    teacher = commands.add_parser("train-teacher", help="train a teacher on lives of a student", **formatter)
    student = commands.add_parser("train", help="train a student under any loss", **formatter)
    for one in (teacher, student):
        own.add_data_options(one)
        own.add_recipe_options(one)
        own.add_run_options(one)
    own.add_teacher_options(teacher)
    own.add_student_options(student)
    evaluate = commands.add_parser("evaluate", help="error rates of checkpoints on test images", **formatter)
    evaluate.add_argument("checkpoints", nargs="+", metavar="CHECKPOINT")
    evaluate.add_argument("--data-dir", metavar="DIR", help="where the images are now (default: where they were)")
    plot = commands.add_parser("plot", help="a teacher's training and its coefficients, as PNG", **formatter)
    plot.add_argument("run", metavar="DIR", help="--save-dir of a train-teacher run")
    plot.add_argument("--output-dir", metavar="DIR", help="default: the same folder")
    plot.add_argument("--classes", nargs="+", metavar="CLASS", help="rows of Phi to show (default: up to 4)")
    return parser


def _train_teacher(options: argparse.Namespace) -> None:
    from fairseq_l2t.classification.runs import train_teacher

    train_teacher(options)


def _train(options: argparse.Namespace) -> None:
    from fairseq_l2t.classification.runs import BEST_CHECKPOINT, train_student

    best = train_student(options)
    print(
        f"best on dev: update {best.update}, {100 * best.dev_error:.2f} % wrong; "
        f"{os.path.join(options.save_dir, BEST_CHECKPOINT)}"
    )


def _evaluate(options: argparse.Namespace) -> None:
    from fairseq_l2t.classification.evaluation import evaluate, interval_of

    groups: dict[tuple, list[float]] = {}
    for path in options.checkpoints:
        found = evaluate(path, options.data_dir)
        print(json.dumps(found))
        key = found["data"], found["protocol"], found["student"], found["loss"]
        groups.setdefault(key, []).append(found["test_error"])
    for (data, protocol, student, loss), errors in groups.items():
        interval = interval_of(errors)
        print(f"{data} ({protocol}), {student}, {loss}: {interval} % of the test images wrong, seeds: {interval.count}")


def _plot(options: argparse.Namespace) -> None:
    from fairseq_l2t.inspection.classifier_plots import plot_run

    for path in plot_run(options.run, options.output_dir or options.run, options.classes):
        print(path)


_COMMANDS = {"train-teacher": _train_teacher, "train": _train, "evaluate": _evaluate, "plot": _plot}


if __name__ == "__main__":
    sys.exit(main())
