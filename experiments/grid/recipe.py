"""Recipes: one experiment with three students, by cross-entropy, label smoothing and a learned loss."""

from __future__ import annotations

from pathlib import Path

from experiments.grid.entries import CountFromZero, Entry, Options, PositiveCount, Seeds, Share
from experiments.grid.reading import load_yaml, read_entry

__all__ = ["RECIPES", "Recipe", "RecipeTeacher", "load_recipe"]

_FOLDER = Path(__file__).resolve().parent.parent / "grids" / "recipes"
RECIPES = tuple(sorted(path.stem for path in _FOLDER.glob("*.yaml")))
"""The names of the recipes in ``grids/recipes``."""


class RecipeTeacher(Entry):
    """Training of the teacher: ``options`` of l2t-train-teacher, those of its student included.

    A teacher knows a student by its progress and its measures alone, so that one trained on a small student teaches a
    larger one of the same vocabulary.
    """

    options: Options
    updates: CountFromZero


class Recipe(Entry):
    """The same ``options`` for every student; the teacher has a student of its own.

    ``vocabulary`` is the number of pieces that the data is prepared with; ``validation_beam`` the beam of validations,
    ``beam`` that of the test set. ``taught`` are options of the taught student alone, ``overrides`` come last in every
    student's command.
    """

    options: Options
    updates: PositiveCount
    validate_every: PositiveCount
    vocabulary: PositiveCount
    teacher: RecipeTeacher
    validation_beam: PositiveCount = 1
    beam: PositiveCount = 5
    label_smoothing: Share = 0.1
    seeds: Seeds = (1,)
    taught: Options = ()
    overrides: Options = ()


def load_recipe(name: str) -> Recipe:
    """Read one of the recipes.

    Raises:
        BadInput: its file cannot be used.
    """
    path = _FOLDER / f"{name}.yaml"
    return read_entry(path, Recipe, load_yaml(path))
