"""Grid files: what they say, and the schema that checks them."""

from experiments.grid.images import BASELINE, ImageGrid, ImageSetting
from experiments.grid.reading import load_grid
from experiments.grid.translation import Corpus, Loss, Student, Teacher, TranslationGrid

__all__ = [
    "BASELINE",
    "Corpus",
    "ImageGrid",
    "ImageSetting",
    "Loss",
    "Student",
    "Teacher",
    "TranslationGrid",
    "load_grid",
]
