"""The settings of a translation grid: each corpus with each share of noise, and where its files are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from experiments.grid import Corpus, TranslationGrid
from fairseq_l2t.pairs.prepare import reference_file

__all__ = ["Setting", "relative_to_here", "settings_of"]


@dataclass(frozen=True)
class Setting:
    """A corpus with a share of noise; all its files are under ``folder``.

    ``earlier`` is such a folder of another run, whose teachers are used instead of training them again; ``prepared`` a
    DATA_BIN that is used instead of the folder's own.
    """

    corpus: Corpus
    noise: float
    folder: Path
    earlier: Path | None = None
    prepared: Path | None = None

    @property
    def name(self) -> str:
        """For people and files; the grid's schema refuses two that are alike."""
        return f"{self.corpus.name}.noise{100 * self.noise:g}"

    @property
    def data_bin(self) -> Path:
        """The binarised data."""
        return self.prepared or self.folder / "data" / "bin"

    @property
    def dictionary(self) -> Path:
        """The dictionary of the target language."""
        return self.data_bin / f"dict.{self.corpus.languages[1]}.txt"

    @property
    def reference(self) -> Path:
        """The untouched target text of the test set."""
        return reference_file(self.data_bin, language=self.corpus.languages[1])

    def teacher(self, name: str) -> Path:
        """The folder of a teacher."""
        return _teacher(self.earlier if self.earlier is not None and self.has_teacher(name) else self.folder, name)

    def teacher_file(self, name: str) -> Path:
        """The file of a teacher."""
        return self.teacher(name) / "teacher.safetensors"

    def has_teacher(self, name: str) -> bool:
        """Whether a teacher was trained in an earlier run."""
        return self.earlier is not None and (_teacher(self.earlier, name) / "teacher.safetensors").is_file()

    def hypotheses(self, student: str, loss: str, seed: int) -> Path:
        """The translation of the test set by a student, one sentence a line."""
        return self.folder / "hypotheses" / f"{student}.{loss}.seed{seed}.txt"

    def comparison(self, student: str, seed: int) -> Path:
        """The output of l2t-compare for the losses of a student."""
        return self.folder / "comparisons" / f"{student}.seed{seed}.json"


def settings_of(grid: TranslationGrid, output: Path, teachers: Path | None = None) -> list[Setting]:
    """Return every corpus with every share of noise.

    Args:
        grid: what is run.
        output: the folder of the run.
        teachers: that of an earlier one, for its teachers.
    """
    pairs = [(corpus, noise) for corpus in grid.corpora.values() for noise in grid.noise]
    names = [Setting(corpus, noise, output).name for corpus, noise in pairs]
    return [
        Setting(corpus, noise, output / name, teachers and teachers / name)
        for (corpus, noise), name in zip(pairs, names, strict=True)
    ]


def relative_to_here(path: Path) -> Path:
    """Return the same path for all spellings of a folder: relative where it is below the current one."""
    path = path.resolve()
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _teacher(setting: Path, name: str) -> Path:
    return setting / "teachers" / name
