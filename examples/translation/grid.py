"""A grid of experiments, read from YAML and checked: corpora, noise, students, losses, teachers, seeds.

    corpora:
      tiny: {embedded: {train: 8000, dev: 500, test: 500}, vocabulary: 2000, students: [transformer]}
      multi30k: {raw: multi30k, vocabulary: 4000, train_limit: 12000, students: [transformer]}
    noise: [0.0, 0.3]
    seeds: [1, 2, 3]
    students:
      transformer: {options: "--arch transformer --optimizer adam", learning_rates: [0.001, 0.002], updates: 1000,
                    validate_every: 100, patience: 5}
    teachers:
      dynamic: {options: "--arch transformer --total-updates 300 --unroll-length 40", updates: 20}
    losses:
      cross-entropy: {options: "--criterion cross_entropy"}
      label-smoothing: {options: "--criterion label_smoothed_cross_entropy",
                        choices: ["--label-smoothing 0.1", "--label-smoothing 0.2"]}
      dynamic: {teacher: dynamic}
    baselines: [cross-entropy, label-smoothing]

    watched: [transformer]
    length_penalties: [1, 1.5, 2]

Options are those of fairseq-train and l2t-train-teacher, as one text or a list of texts. Of every loss, learning rate
and choice are taken by dev BLEU with the first seed. Students that are watched keep all checkpoints of the first seed
on noisy data, for the share of the gradient that goes to misaligned pairs (gradient_share.py). Of several
``length_penalties`` (fairseq-generate's ``--lenpen``; where none are named, 1) every run that counts has the one with
the best dev BLEU by beam search.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from grid_values import Options, Values, load_yaml

from toy_corpus.corpus import CorpusSettings

__all__ = ["Corpus", "Grid", "Loss", "Options", "Student", "Teacher", "load_grid"]

# What the grid says itself, and where.
_OF_THE_GRID = {
    "--lr": "in learning_rates",
    "--max-update": "updates of the student",
    "--patience": "patience of the student",
    "--seed": "in seeds",
    "--save-dir": "a folder of each run",
    "--restore-file": "found in the folder of each run",
}
_OF_THE_TEACHER = {"--teacher-updates": "updates of the teacher", "--save-dir": "a folder of each teacher"}
_OF_A_TAUGHT_LOSS = dict.fromkeys(("--criterion", "--task", "--teacher-path", "--user-dir"), "that of its teacher")


@dataclass(frozen=True)
class Corpus:
    """Parallel text: ``raw``, a folder relative to ``--raw-dir``, or ``embedded``, sizes of the generated corpus.

    ``part`` is the share of the training pairs for ``--train-subset part``, such as a tenth that a teacher is trained
    on.
    """

    name: str
    vocabulary: int
    students: tuple[str, ...]
    raw: str | None = None
    embedded: CorpusSettings | None = None
    train_limit: int = 0
    part: float = 0.0
    direction: str = "de-en"

    @property
    def languages(self) -> tuple[str, str]:
        """Source and target."""
        source, target = self.direction.split("-")
        return source, target


@dataclass(frozen=True)
class Student:
    """A student of a size, and how long it is trained: validated every ``validate_every`` updates, and stopped after
    ``patience`` validations without a better dev BLEU."""

    name: str
    options: Options
    learning_rates: tuple[float, ...]
    updates: int
    validate_every: int
    patience: int


@dataclass(frozen=True)
class Teacher:
    """How a teacher is trained: ``options`` of l2t-train-teacher, its student's included."""

    name: str
    options: Options
    updates: int


@dataclass(frozen=True)
class Loss:
    """A criterion by its ``options``, or that of a ``teacher``; ``choices`` are tried like learning rates."""

    name: str
    options: Options = ()
    choices: tuple[Options, ...] = ((),)
    teacher: str | None = None


@dataclass(frozen=True)
class Grid:
    """Everything that is run."""

    corpora: tuple[Corpus, ...]
    noise: tuple[float, ...]
    seeds: tuple[int, ...]
    students: Mapping[str, Student]
    teachers: Mapping[str, Teacher]
    losses: Mapping[str, Loss]
    baselines: tuple[str, ...]
    beam: int = 5
    watched: tuple[str, ...] = ()
    length_penalties: tuple[float, ...] = (1.0,)


def load_grid(path: Path) -> Grid:
    """Read and check a grid.

    Raises:
        BadInput: not YAML, or a value that cannot be used; names file and entry.
    """
    return _Reader(path).grid(load_yaml(path))


class _Reader(Values):
    """Turns plain values into a grid."""

    def grid(self, content: Any) -> Grid:
        top = self.mapping(content, "the file", {field.name for field in fields(Grid)})
        for name in ("corpora", "students", "losses", "seeds"):
            if not top.get(name):
                raise self.bad(name, top.get(name), "at least one")
        students = {name: self._student(name, entry) for name, entry in self.entries(top, "students")}
        teachers = {name: self._teacher(name, entry) for name, entry in self.entries(top, "teachers")}
        losses = {name: self._loss(name, entry, teachers) for name, entry in self.entries(top, "losses")}
        if len(losses) < 2:
            raise self.bad("losses", list(losses), "at least two, to compare")
        corpora = tuple(self._corpus(name, entry, students) for name, entry in self.entries(top, "corpora"))
        noise = tuple(self.number("noise", share, float, 0.0, 1.0) for share in self.several(top, "noise", [0.0]))
        if not noise:
            raise self.bad("noise", [], "at least one share")
        seeds = tuple(self.number("seeds", seed, int, 1) for seed in self.several(top, "seeds"))
        self.distinct("seeds", seeds)
        self.distinct("noise", noise, lambda share: f"{100 * share:g}")
        baselines = tuple(self.known("baselines", name, losses) for name in self.several(top, "baselines", []))
        if not baselines:
            raise self.bad("baselines", [], f"some of {', '.join(losses)}")
        beam = self.number("beam", top.get("beam", 5), int, 1)
        watched = tuple(self.known("watched", name, students) for name in self.several(top, "watched", []))
        penalties = tuple(
            self.number("length_penalties", one, float, 0.0) for one in self.several(top, "length_penalties", [1.0])
        )
        self.distinct("length_penalties", penalties, lambda penalty: f"{penalty:g}")
        if not penalties:
            raise self.bad("length_penalties", [], "at least one")
        return Grid(corpora, noise, seeds, students, teachers, losses, baselines, beam, watched, penalties)

    def _corpus(self, name: str, entry: Any, students: Mapping[str, Student]) -> Corpus:
        where = f"corpora.{name}"
        values = self.mapping(entry, where, {field.name for field in fields(Corpus)} - {"name"})
        if ("raw" in values) == ("embedded" in values):
            raise self.bad(where, sorted(values), "either raw or embedded")
        embedded = None
        if "embedded" in values:
            sizes = self.mapping(values["embedded"], f"{where}.embedded", {"train", "dev", "test", "seed"})
            embedded = CorpusSettings(
                **{
                    key: self.number(f"{where}.embedded.{key}", size, int, 0 if key == "seed" else 1)
                    for key, size in sizes.items()
                }
            )
        elif not isinstance(values["raw"], str) or not values["raw"]:
            raise self.bad(f"{where}.raw", values["raw"], "the name of a folder in --raw-dir")
        chosen = self.several(values, "students", list(students), where)
        self.distinct(f"{where}.students", chosen)
        return Corpus(
            name,
            self.number(f"{where}.vocabulary", values.get("vocabulary"), int, 1),
            tuple(self.known(f"{where}.students", one, students) for one in chosen),
            values.get("raw"),
            embedded,
            self.number(f"{where}.train_limit", values.get("train_limit", 0), int, 0),
            self.number(f"{where}.part", values.get("part", 0.0), float, 0.0, 1.0),
            self.known(f"{where}.direction", values.get("direction", "de-en"), dict.fromkeys(("de-en", "en-de"))),
        )

    def _student(self, name: str, entry: Any) -> Student:
        where = f"students.{name}"
        values = self.mapping(entry, where, {field.name for field in fields(Student)} - {"name"})
        rates = self.several(values, "learning_rates", None, where)
        whole = {
            key: self.number(f"{where}.{key}", values.get(key), int, 1)
            for key in ("updates", "validate_every", "patience")
        }
        if whole["validate_every"] > whole["updates"]:
            raise self.bad(f"{where}.validate_every", whole["validate_every"], f"at most updates, {whole['updates']}")
        positive = tuple(self.number(f"{where}.learning_rates", rate, float, 1e-12) for rate in rates)
        self.distinct(f"{where}.learning_rates", positive, lambda rate: f"{rate:g}")
        options = self.options(f"{where}.options", values.get("options"), _OF_THE_GRID)
        return Student(name, options, positive, **whole)

    def _teacher(self, name: str, entry: Any) -> Teacher:
        where = f"teachers.{name}"
        values = self.mapping(entry, where, {"options", "updates"})
        options = self.options(f"{where}.options", values.get("options"), _OF_THE_TEACHER)
        return Teacher(name, options, self.number(f"{where}.updates", values.get("updates"), int, 0))

    def _loss(self, name: str, entry: Any, teachers: Mapping[str, Teacher]) -> Loss:
        where = f"losses.{name}"
        values = self.mapping(entry, where, {"options", "choices", "teacher"})
        teacher = values.get("teacher")
        if teacher is not None:
            self.known(f"{where}.teacher", teacher, teachers)
        elif "options" not in values:
            raise self.bad(where, sorted(values), "options with a --criterion, or a teacher")
        taken = _OF_THE_GRID if teacher is None else {**_OF_THE_GRID, **_OF_A_TAUGHT_LOSS}
        choices = [self.options(f"{where}.choices", one, taken) for one in self.several(values, "choices", [""], where)]
        if not choices:
            raise self.bad(f"{where}.choices", [], "at least one")
        options = self.options(f"{where}.options", values.get("options", ""), taken)
        return Loss(name, options, tuple(choices), teacher)
