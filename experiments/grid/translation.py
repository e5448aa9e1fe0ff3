"""Grids of translation: corpora, noise, students, losses, teachers and seeds.

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

Options are those of fairseq-train and l2t-train-teacher, as one text or a list of texts. The first seed chooses a
learning rate and one of the ``choices`` of each loss, by dev BLEU. Students that are ``watched`` keep all checkpoints
of the first seed on noisy data, to measure the share of the gradient that misaligned pairs get. Where several
``length_penalties`` (``--lenpen`` of fairseq-generate, 1 by default) are given, each run is decoded with the one of
the best dev BLEU. ``patience`` may be left out; ``length_limit: false`` decodes the test set up to fairseq's own limit.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from experiments.grid.entries import (
    CountFromZero,
    Entry,
    Name,
    Names,
    Options,
    Penalties,
    PositiveCount,
    Rates,
    Seeds,
    Share,
    Shares,
    entries_with_names,
    reserved,
)

__all__ = ["Corpus", "Loss", "Sizes", "Student", "Teacher", "TranslationGrid"]

_SET_BY_THE_GRID = {
    "--lr": "in learning_rates",
    "--max-update": "`updates` of the student",
    "--patience": "`patience` of the student",
    "--seed": "in seeds",
    "--save-dir": "a folder of each run",
    "--restore-file": "found in the folder of each run",
}
_SET_BY_THE_TEACHER_ENTRY = {"--teacher-updates": "`updates` of the teacher", "--save-dir": "a folder of each teacher"}
_SET_BY_A_TEACHER = dict.fromkeys(("--criterion", "--task", "--teacher-path", "--user-dir"), "set by the teacher")


_StudentOptions = Annotated[Options, AfterValidator(lambda options: reserved(options, _SET_BY_THE_GRID))]
_TeacherOptions = Annotated[Options, AfterValidator(lambda options: reserved(options, _SET_BY_THE_TEACHER_ENTRY))]


class Sizes(Entry):
    """Sentence pairs of the generated corpus, and its seed."""

    train: PositiveCount = 8000
    dev: PositiveCount = 500
    test: PositiveCount = 500
    seed: CountFromZero = 1


class Corpus(Entry):
    """Parallel text: ``raw``, a folder below ``--raw-dir``, or ``embedded``, sizes of the generated corpus.

    ``part`` is the share of the training pairs that ``--train-subset part`` takes, such as a tenth for a teacher.
    ``students`` are trained on it; all, if not given.
    """

    name: Name
    vocabulary: PositiveCount
    students: Names | None = None
    raw: Annotated[str, Field(min_length=1)] | None = None
    embedded: Sizes | None = None
    train_limit: CountFromZero = 0
    part: Share = 0.0
    direction: Literal["de-en", "en-de"] = "de-en"

    @model_validator(mode="after")
    def _has_one_source(self) -> Corpus:
        if (self.raw is None) == (self.embedded is None):
            raise ValueError("expected either raw or embedded")
        return self

    @property
    def languages(self) -> tuple[str, str]:
        """Source and target."""
        source, target = self.direction.split("-")
        return source, target


class Student(Entry):
    """A student and the length of its training: validated every ``validate_every`` updates with ``validation_beam``,
    and stopped after ``patience`` validations without a better dev BLEU."""

    name: Name
    options: _StudentOptions
    learning_rates: Rates
    updates: PositiveCount
    validate_every: PositiveCount
    patience: PositiveCount | None = None
    validation_beam: PositiveCount = 1

    @model_validator(mode="after")
    def _is_validated(self) -> Student:
        if self.validate_every > self.updates:
            raise ValueError(f"validate_every: {self.validate_every}, expected at most updates, {self.updates}")
        return self


class Teacher(Entry):
    """Training of a teacher: ``options`` of l2t-train-teacher, those of its student included."""

    name: Name
    options: _TeacherOptions
    updates: CountFromZero


class Loss(Entry):
    """A criterion with its ``options``, or that of a ``teacher``; ``choices`` are tried like learning rates."""

    name: Name
    options: _StudentOptions | None = None
    choices: Annotated[tuple[_StudentOptions, ...], Field(strict=False, min_length=1)] = ((),)
    teacher: str | None = None

    @model_validator(mode="after")
    def _has_a_criterion(self) -> Loss:
        if self.teacher is None and self.options is None:
            raise ValueError("expected options with a --criterion, or a teacher")
        if self.teacher is not None:
            for options in (self.options or (), *self.choices):
                reserved(options, _SET_BY_A_TEACHER)
        return self


class TranslationGrid(Entry):
    """A grid file; the head of this module shows one."""

    corpora: Annotated[dict[Name, Corpus], Field(min_length=1), BeforeValidator(entries_with_names)]
    seeds: Seeds
    students: Annotated[dict[Name, Student], Field(min_length=1), BeforeValidator(entries_with_names)]
    losses: Annotated[dict[Name, Loss], Field(min_length=2), BeforeValidator(entries_with_names)]
    baselines: Names
    teachers: Annotated[dict[Name, Teacher], BeforeValidator(entries_with_names)] = {}
    noise: Shares = (0.0,)
    beam: PositiveCount = 5
    watched: Annotated[tuple[Name, ...], Field(strict=False)] = ()
    length_penalties: Penalties = (1.0,)
    length_limit: bool = True

    @model_validator(mode="after")
    def _names_are_known(self) -> TranslationGrid:
        uses: list[tuple[str, str, Collection[str]]] = [("baselines", name, self.losses) for name in self.baselines]
        uses += [("watched", name, self.students) for name in self.watched]
        for corpus in self.corpora.values():
            uses += [(f"corpora.{corpus.name}.students", name, self.students) for name in corpus.students or ()]
        uses += [
            (f"losses.{one.name}.teacher", one.teacher, self.teachers) for one in self.losses.values() if one.teacher
        ]
        for where, name, known in uses:
            if name not in known:
                raise ValueError(f"{where}: {name!r}, expected one of {', '.join(known)}")
        return self

    def students_of(self, corpus: Corpus) -> list[Student]:
        """Return the students that are trained on a corpus."""
        return [self.students[name] for name in corpus.students or self.students]
