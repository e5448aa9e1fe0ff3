"""``l2t-classify``: teachers of loss functions for image classifiers, and students under them; without fairseq."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from fairseq_l2t.cli.entry import USAGE_ERROR, fail, run_command, run_training

if TYPE_CHECKING:
    from fairseq_l2t.classification.options import EvaluateOptions, PlotOptions, TrainOptions, TrainTeacherOptions

__all__ = ["main"]

_NAME = "l2t-classify"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code (0; 1 the run failed; 2 bad options or files; 128 + signal)."""
    given = sys.argv[1:] if arguments is None else arguments
    # The output of `evaluate` is read by programs.
    return run_command(_NAME, _run, given, log_to=sys.stderr if "evaluate" in given[:1] else sys.stdout)


def _run(arguments: Sequence[str]) -> int:
    from fairseq_l2t.classification.options import parse

    try:
        command = parse(arguments)
    except ValueError as error:
        return fail(_NAME, error, USAGE_ERROR)
    return run_training(_NAME, lambda: _COMMANDS[command.name](command.options))


def _train_teacher(options: TrainTeacherOptions) -> None:
    from fairseq_l2t.classification.runs import train_teacher

    train_teacher(options)


def _train(options: TrainOptions) -> None:
    from fairseq_l2t.classification.runs import BEST_CHECKPOINT, train_student

    best = train_student(options)
    print(
        f"best on dev: update {best.update}, {100 * best.dev_error:.2f} % wrong; "
        f"{os.path.join(options.save_dir, BEST_CHECKPOINT)}"
    )


def _evaluate(options: EvaluateOptions) -> None:
    from fairseq_l2t.classification.evaluation import evaluate, interval_of

    groups: dict[tuple[str, ...], list[float]] = {}
    for path in options.checkpoints:
        found = evaluate(path, options.data_dir)
        print(json.dumps(found))
        key = found["data"], found["protocol"], found["student"], found["loss"]
        groups.setdefault(key, []).append(found["test_error"])
    for (data, protocol, student, loss), errors in groups.items():
        interval = interval_of(errors)
        # For people, so on stderr: stdout has JSON lines alone.
        summary = f"{data} ({protocol}), {student}, {loss}: {interval} % of the test images wrong"
        print(f"{summary}, seeds: {interval.count}", file=sys.stderr)


def _plot(options: PlotOptions) -> None:
    try:
        from fairseq_l2t.inspection.classifier_plots import plot_run
    except ImportError as error:
        raise ValueError(f"plot: matplotlib cannot be imported ({error}); pip install 'matplotlib>=3.7'") from error

    for path in plot_run(options.run, options.output_dir or options.run, list(options.classes) or None):
        print(path)


_COMMANDS: dict[str, Callable[[Any], None]] = {
    "train-teacher": _train_teacher,
    "train": _train,
    "evaluate": _evaluate,
    "plot": _plot,
}


if __name__ == "__main__":
    sys.exit(main())
