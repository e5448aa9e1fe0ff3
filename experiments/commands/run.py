"""Runs what is left of a grid, and reports.

    python -m experiments run experiments/grids/translation/cpu.yaml --raw-dir DIR --output-dir out/cpu

A finished run is not done again: the same command goes on after an interruption. For translation it prepares the
corpora, trains teachers and students, decodes the test set once for each student that counts, and writes
``SETTING/runs.jsonl`` and ``SETTING/teachers.jsonl`` for each corpus and share of noise; for images it trains teachers
and students and writes ``runs.jsonl``.

Every learning rate and choice of a loss is trained with the first seed (images: with the tuning seeds); dev chooses
one, which is trained with the other seeds. A run that ends in NaN counts with what it had before. The test set has no
part in it. Paths in commands are relative to the current folder: go on from the folder in which a run was begun.
"""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from experiments.grid import ImageGrid, load_grid
from experiments.plan.setting import relative_to_here
from experiments.programs.runner import run_steps
from experiments.programs.step import Step
from fairseq_l2t.pairs.parallel_text import BadInput
from fairseq_l2t.storage import lock_run_folder

__all__ = ["GridRun", "add_grid_options", "add_options", "grid_run", "run", "run_grid"]

_OF_TRANSLATION, _OF_IMAGES = ("students", "teachers", "raw_dir"), ("data_dir",)


class GridRun(Protocol):
    """The run of a grid of one kind; its methods raise BadInput for what cannot be used."""

    def steps(self) -> list[Step]:
        """Return all steps, finished ones included; nothing is written."""

    def prepare(self, steps: Sequence[Step]) -> None:
        """Make the data, and check what could be refused later."""

    def note(self, step: Step) -> None:
        """Record the result of a step that has finished."""

    def report(self) -> None:
        """Write tables and plots of the records that are there, and print the tables."""


def run(options: argparse.Namespace) -> None:
    """Do what is left of a grid, and report.

    Raises:
        BadInput: a grid, option or corpus that cannot be used.
        RunFolderError: another run uses the folder.
        StepFailed: a program ended with an error.
    """
    run_grid(grid_run(options), options)


def run_grid(one: GridRun, options: argparse.Namespace) -> None:
    """See `run`, which has the same errors."""
    steps = one.steps()
    if options.dry_run:
        for step in steps:
            print(f"{step.name}\n  $ {shlex.join(step.command)}")
        print(f"{len(steps)} steps")
        return
    with lock_run_folder(options.output_dir, "--output-dir"):
        one.prepare(steps)
        run_steps(steps, options.jobs, on_done=one.note)
        one.report()


def grid_run(options: argparse.Namespace) -> GridRun:
    """Return the run of the grid of the options.

    Raises:
        BadInput: a grid that cannot be used, or an option that is for grids of the other kind.
    """
    grid = load_grid(options.grid)
    kind, foreign = ("images", _OF_TRANSLATION) if isinstance(grid, ImageGrid) else ("translation", _OF_IMAGES)
    for name in foreign:
        if getattr(options, name) is not None:
            raise BadInput(f"--{name.replace('_', '-')}: not for {options.grid}, which is a grid of {kind}")
    options.output_dir = relative_to_here(options.output_dir)
    # The libraries of the other kind are not imported.
    if isinstance(grid, ImageGrid):
        from experiments.commands.image_run import ImageRun

        return ImageRun(grid, options)
    from experiments.commands.translation_run import TranslationRun

    return TranslationRun(grid, options)


def add_grid_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that `run` and `report` share."""
    parser.add_argument("grid", type=Path, metavar="GRID.yaml")
    parser.add_argument("--output-dir", type=Path, required=True, metavar="DIR", help="finished runs there are kept")
    settings = "only these, such as multi30k.noise30 (default: all)"
    parser.add_argument("--settings", nargs="+", metavar="NAME", help=settings)
    parser.set_defaults(students=None, teachers=None, raw_dir=None, data_dir=None)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this command."""
    add_grid_options(parser)
    jobs = "programs at a time, one thread each (default: 2)"
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help=jobs)
    parser.add_argument("--dry-run", action="store_true", help="list the commands")
    raw = "translation: folder of the corpora that a grid names as raw (default: ../shared/data)"
    parser.add_argument("--raw-dir", type=Path, metavar="DIR", help=raw)
    students = "translation: train only these; without a name, teachers alone (default: all)"
    parser.add_argument("--students", nargs="*", metavar="NAME", help=students)
    teachers = "translation: --output-dir of an earlier run, whose teachers are used instead of training them again"
    parser.add_argument("--teachers", type=Path, metavar="DIR", help=teachers)
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="images: their folder, such as that of MNIST")
