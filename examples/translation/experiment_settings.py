"""The settings of a grid: each corpus with each share of noise, and where its files are."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from grid import Corpus, Grid

from fairseq_l2t.pairs.prepare import reference_file

__all__ = ["Setting", "settings_of"]


@dataclass(frozen=True)
class Setting:
    """A corpus with a share of noise; everything of it is under ``folder``.

    ``earlier`` is such a folder of another run, whose teachers are taken rather than trained anew.
    """

    corpus: Corpus
    noise: float
    folder: Path
    earlier: Path | None = None

    @property
    def name(self) -> str:
        """For people and files; `grid.load_grid` sees to it that no two are alike."""
        return f"{self.corpus.name}.noise{100 * self.noise:g}"

    @property
    def data_bin(self) -> Path:
        """Made by prepare.py."""
        return self.folder / "data" / "bin"

    @property
    def reference(self) -> Path:
        """The untouched target text of the test set."""
        return reference_file(self.data_bin, language=self.corpus.languages[1])

    def teacher(self, name: str) -> Path:
        """The folder of a teacher."""
        return _teacher(self.earlier if self.has_teacher(name) else self.folder, name)

    def has_teacher(self, name: str) -> bool:
        """Whether a teacher was trained in an earlier run."""
        return self.earlier is not None and (_teacher(self.earlier, name) / "teacher.safetensors").is_file()

    def hypotheses(self, student: str, loss: str, seed: int) -> Path:
        """The test set as a student translates it, one sentence a line."""
        return self.folder / "hypotheses" / f"{student}.{loss}.seed{seed}.txt"

    def comparison(self, student: str, seed: int) -> Path:
        """What l2t-compare writes of the losses of a student."""
        return self.folder / "comparisons" / f"{student}.seed{seed}.json"


def settings_of(grid: Grid, output: Path, teachers: Path | None = None) -> list[Setting]:
    """Return every corpus with every share of noise.

    Args:
        grid: what is run.
        output: the folder of the run.
        teachers: that of an earlier one, for its teachers.
    """
    bare = [Setting(corpus, noise, output) for corpus in grid.corpora for noise in grid.noise]
    return [replace(one, folder=output / one.name, earlier=teachers and teachers / one.name) for one in bare]


def _teacher(setting: Path, name: str) -> Path:
    return setting / "teachers" / name
