"""``l2t-inspect``: the coefficients of a teacher, as text tables and as plots."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np

from fairseq_l2t.cli.entry import drop_output, version_of
from fairseq_l2t.cli.one_line_parser import OneLineParser
from fairseq_l2t.inspection import (
    InspectionError,
    StateSource,
    TrainingLog,
    choose_states,
    format_report,
    read_dictionary,
    read_training_log,
    word_weights,
)
from fairseq_l2t.inspection.dictionary import TargetDictionary, require_dictionary_of
from fairseq_l2t.storage import TeacherFile, TeacherFileError, load_teacher

__all__ = ["main"]

_MOST_STAGES = 8
"""More columns do not fit a terminal."""
_CURVE_POINTS = 101
"""Stages per curve in plots."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code (bad options and unusable files: 2, with one line on stderr)."""
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        _inspect(options)
    except (InspectionError, TeacherFileError) as error:
        parser.error(str(error))
    except BrokenPipeError:  # `l2t-inspect ... | head`: a closed pipe is no error
        drop_output()
    except OSError as error:
        if error.filename is None:
            drop_output()
            parser.error(f"standard output: {error.strerror}")
        parser.error(f"--plots: {error.filename}: {error.strerror}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = OneLineParser(
        prog="l2t-inspect",
        description="Show the target words with the highest and lowest weights at stages of a student's life.",
    )
    parser.add_argument("--version", action="version", version=version_of(parser.prog))
    parser.add_argument("teacher", metavar="FILE", help="teacher file of l2t-train-teacher")
    parser.add_argument("--dict", required=True, metavar="FILE", help="target dictionary, for example dict.en.txt")
    parser.add_argument(
        "--log", metavar="FILE", help="log of the teacher's training (teacher_log.jsonl), for student states and plots"
    )
    parser.add_argument("--top", type=_whole(1), default=15, metavar="N", help="words per list (default: %(default)s)")
    parser.add_argument(
        "--stages",
        type=_stages,
        default=(0.0, 0.25, 0.5, 0.75, 1.0),
        metavar="P,P,...",
        help=f"progress values in [0, 1] to show, at most {_MOST_STAGES} (default: 0,0.25,0.5,0.75,1)",
    )
    parser.add_argument(
        "--min-count",
        type=_whole(0),
        default=1,
        metavar="N",
        help="leave out words with fewer occurrences in the training text (default: %(default)s)",
    )
    parser.add_argument(
        "--rare-below",
        type=_whole(0),
        default=10,
        metavar="N",
        help="mark words with fewer occurrences with an asterisk (default: %(default)s)",
    )
    parser.add_argument("--plots", metavar="DIR", help="write PNG plots into DIR (needs matplotlib)")
    return parser


def _whole(least: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.strip().lstrip("-").isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r}; expected a whole number of at least {least}")
        return int(text)

    return parse


def _stages(text: str) -> tuple[float, ...]:
    try:
        stages = sorted({float(part) for part in text.split(",")})
    except ValueError:
        stages = [math.nan]
    if not all(0 <= stage <= 1 for stage in stages) or len(stages) > _MOST_STAGES:
        raise argparse.ArgumentTypeError(
            f"{text!r}; expected at most {_MOST_STAGES} numbers in [0, 1], separated by commas"
        )
    return tuple(stages)


def _inspect(options: argparse.Namespace) -> None:
    plots = None if options.plots is None else _import_plots()
    teacher_file = load_teacher(options.teacher)
    dictionary = read_dictionary(options.dict)
    require_dictionary_of(teacher_file, dictionary, options.dict)
    log = None if options.log is None else read_training_log(options.log)
    source = choose_states(teacher_file, log)
    stages = np.array(options.stages)
    weights = word_weights(teacher_file, dictionary, stages, source.at(stages), min_count=options.min_count)
    report = format_report(teacher_file, source, weights, top=options.top, rare_below=options.rare_below)
    _print(report)
    if log is not None:
        for note in log.notes:
            _print(f"Note on {log.path}: {note}.\n")
    if plots is not None:
        _plot(plots, options, teacher_file, dictionary, source, log)
    if sys.stdout is not None:
        sys.stdout.flush()


def _print(text: str) -> None:
    if sys.stdout is None:  # closed by whoever started the command
        return
    # Letters that the terminal's encoding lacks become question marks instead of ending the program.
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "replace").decode(encoding))


def _import_plots() -> ModuleType:
    try:
        from fairseq_l2t.inspection import plots  # takes a second, so it is imported only for plots
    except ImportError as error:
        raise InspectionError(
            f"--plots: matplotlib cannot be imported ({error}); pip install 'matplotlib>=3.7'"
        ) from error
    return plots


def _plot(
    plots: ModuleType,
    options: argparse.Namespace,
    teacher_file: TeacherFile,
    dictionary: TargetDictionary,
    source: StateSource,
    log: TrainingLog | None,
) -> None:
    folder = Path(options.plots)
    folder.mkdir(parents=True, exist_ok=True)
    points = np.linspace(0, 1, _CURVE_POINTS)
    weights = word_weights(teacher_file, dictionary, points, source.at(points), min_count=options.min_count)
    settings = teacher_file.settings
    until = settings.cross_entropy_updates / settings.total_updates
    plots.plot_coefficients(folder / "phi_over_progress.png", weights, cross_entropy_until=until)
    plots.plot_words(folder / "words_over_progress.png", weights, words=options.top)
    written = ["phi_over_progress.png", "words_over_progress.png"]
    if log is not None:
        lives = (settings.extra.get("plan") or {}).get("holdout_lives", 1)
        from fairseq_l2t.inspection.training_plot import plot_training

        plot_training(folder / "teacher_training.png", log, judged_after=lives > 0)
        written.append("teacher_training.png")
    for name in written:
        _print(f"Plot: {folder / name}\n")
    if log is None:
        _print("No plot of the teacher's training: it is drawn from --log, which is not given.\n")


if __name__ == "__main__":
    sys.exit(main())
