"""One experiment on one corpus: cross-entropy, label smoothing and a learned loss, by the same recipe.

    python -m experiments recipe multi30k DATA --output-dir out/run --seeds 1 2 3

DATA is a folder of raw text or a DATA_BIN made by ``python -m fairseq_l2t.pairs.prepare``. A recipe is a small grid of
``grids/recipes``, run as `run` runs one: a finished step is not done again, so that an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from experiments.commands.run import run_grid
from experiments.commands.translation_run import TranslationRun
from experiments.grid import TranslationGrid
from experiments.grid.reading import load_yaml, read_entry
from experiments.plan.setting import relative_to_here
from fairseq_l2t.pairs.parallel_text import BadInput, read_json
from fairseq_l2t.pairs.prepare import RECORD

__all__ = ["RECIPES", "add_options", "chosen_recipe", "run", "run_recipe"]

_FOLDER = Path(__file__).resolve().parent.parent / "grids" / "recipes"
RECIPES = tuple(sorted(path.stem for path in _FOLDER.glob("*.yaml")))
"""The names of the recipes in ``grids/recipes``."""


def run(options: argparse.Namespace) -> None:
    """Prepare the data if need be, run a recipe on it, and print its result; see `run.run` for the other errors.

    Raises:
        BadInput: the data is neither raw text nor a DATA_BIN.
    """
    data, grid = options.data, chosen_recipe(options)
    prepared = data if (data / RECORD).is_file() else None
    if prepared is None and not (data / "train.de").exists():
        raise BadInput(f"{data}: no train.de and no {RECORD}, expected a folder of raw text, or a DATA_BIN")
    if prepared is not None:
        if options.noise or options.train_limit:
            raise BadInput(f"--noise, --train-limit: not for {data}, which is prepared; expected a folder of raw text")
        noise = read_json(data / RECORD, "prepare the data again")["noise"]
        grid = grid.model_copy(update={"noise": (noise,)})
    run_recipe(grid, options, prepared)


def run_recipe(grid: TranslationGrid, options: argparse.Namespace, prepared: Path | None) -> None:
    """Run a recipe on raw text, or on a ``prepared`` DATA_BIN; see `run.run` for the errors."""
    options.grid, options.raw_dir = _FOLDER / f"{options.recipe}.yaml", options.data
    options.output_dir = relative_to_here(options.output_dir)
    one = TranslationRun(grid, options, prepared)
    run_grid(one, options)
    one.print_details()


def chosen_recipe(options: argparse.Namespace) -> TranslationGrid:
    """Return the recipe with the changes that the command line asks for.

    Raises:
        BadInput: the recipe's file cannot be used.
    """
    path = _FOLDER / f"{options.recipe}.yaml"
    grid = read_entry(path, TranslationGrid, load_yaml(path))
    student_words, teacher_words, taught_words = (
        tuple(shlex.split(getattr(options, f"{name}_arguments"))) for name in ("student", "teacher", "taught")
    )
    corpora = {name: one.model_copy(update={"train_limit": options.train_limit}) for name, one in grid.corpora.items()}
    students = {
        name: one.model_copy(update={"updates": options.updates or one.updates}) for name, one in grid.students.items()
    }
    teachers = {}
    for name, teacher in grid.teachers.items():
        updates = teacher.updates if options.teacher_updates is None else options.teacher_updates
        changed = {"options": (*teacher.options, *teacher_words), "updates": updates}
        teachers[name] = teacher.model_copy(update=changed)
    losses = {}
    for name, loss in grid.losses.items():
        own = (*(loss.options or ()), *(taught_words if loss.teacher else ()))
        # A choice comes last in a command, also after the learning rate.
        losses[name] = loss.model_copy(update={"options": own, "choices": (student_words,)})
    changes = {"corpora": corpora, "students": students, "teachers": teachers, "losses": losses}
    seeds = tuple(options.seeds or grid.seeds)
    return grid.model_copy(update={**changes, "seeds": seeds, "noise": (options.noise,)})


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this program."""
    parser.add_argument("recipe", choices=RECIPES, metavar="RECIPE", help=f"one of {', '.join(RECIPES)}")
    parser.add_argument("data", type=Path, metavar="DATA", help="{train,valid,test}.{de,en} in it, or a DATA_BIN")
    parser.add_argument("--output-dir", type=Path, required=True, metavar="DIR")
    noise = "share of the training pairs to misalign (default: 0)"
    parser.add_argument("--noise", type=float, default=0.0, metavar="SHARE", help=noise)
    limit = "training pairs to use, the first of them (default: 0, all)"
    parser.add_argument("--train-limit", type=int, default=0, metavar="N", help=limit)
    parser.add_argument("--seeds", type=int, nargs="+", metavar="N", help="student seeds (default: the recipe's)")
    parser.add_argument("--updates", type=int, metavar="N", help="length of a student's training")
    parser.add_argument("--teacher-updates", type=int, metavar="N", help="0 or more")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="programs at a time (default: 2)")
    for name, which in (
        ("student", "fairseq options of all students, not of the teacher; later ones win"),
        ("teacher", "options of l2t-train-teacher"),
        ("taught", "fairseq options of the taught student"),
    ):
        parser.add_argument(f"--{name}-arguments", default="", metavar="TEXT", help=which)
    parser.set_defaults(settings=None, students=None, teachers=None, dry_run=False)
