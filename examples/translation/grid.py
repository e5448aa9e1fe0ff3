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

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml
from corpus import CorpusSettings
from textfiles import BadInput

__all__ = ["Corpus", "Grid", "Loss", "Student", "Teacher", "load_grid"]

Options = tuple[str, ...]
# What fairseq's integers hold; for a learning rate, anything below infinity.
_MOST = 2**31 - 1


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
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadInput(f"{path}: {' '.join(str(error).split())}") from None
    return _Reader(path).grid(content)


class _Reader:
    """Turns plain values into a grid, and knows the file they come from."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def grid(self, content: Any) -> Grid:
        top = self._mapping(content, "the file", {field.name for field in fields(Grid)})
        for name in ("corpora", "students", "losses", "seeds"):
            if not top.get(name):
                raise self._bad(name, top.get(name), "at least one")
        students = {name: self._student(name, entry) for name, entry in self._entries(top, "students")}
        teachers = {name: self._teacher(name, entry) for name, entry in self._entries(top, "teachers")}
        losses = {name: self._loss(name, entry, teachers) for name, entry in self._entries(top, "losses")}
        corpora = tuple(self._corpus(name, entry, students) for name, entry in self._entries(top, "corpora"))
        noise = tuple(self._number("noise", share, float, 0.0, 1.0) for share in self._list(top, "noise", [0.0]))
        seeds = tuple(self._number("seeds", seed, int, 1) for seed in self._list(top, "seeds"))
        self._distinct("seeds", seeds)
        self._distinct("noise", noise, lambda share: f"{100 * share:g}")
        baselines = tuple(self._known("baselines", name, losses) for name in self._list(top, "baselines", []))
        if not baselines:
            raise self._bad("baselines", [], f"some of {', '.join(losses)}")
        beam = self._number("beam", top.get("beam", 5), int, 1)
        watched = tuple(self._known("watched", name, students) for name in self._list(top, "watched", []))
        penalties = tuple(self._number("length_penalties", one, float, 0.0)
                          for one in self._list(top, "length_penalties", [1.0]))  # fmt: skip
        self._distinct("length_penalties", penalties, lambda penalty: f"{penalty:g}")
        if not penalties:
            raise self._bad("length_penalties", [], "at least one")
        return Grid(corpora, noise, seeds, students, teachers, losses, baselines, beam, watched, penalties)

    def _corpus(self, name: str, entry: Any, students: Mapping[str, Student]) -> Corpus:
        where = f"corpora.{name}"
        values = self._mapping(entry, where, {field.name for field in fields(Corpus)} - {"name"})
        if ("raw" in values) == ("embedded" in values):
            raise self._bad(where, sorted(values), "either raw or embedded")
        embedded = None
        if "embedded" in values:
            sizes = self._mapping(values["embedded"], f"{where}.embedded", {"train", "dev", "test", "seed"})
            embedded = CorpusSettings(**{
                key: self._number(f"{where}.embedded.{key}", size, int, 0 if key == "seed" else 1)
                for key, size in sizes.items()
            })  # fmt: skip
        elif not isinstance(values["raw"], str) or not values["raw"]:
            raise self._bad(f"{where}.raw", values["raw"], "the name of a folder in --raw-dir")
        chosen = self._list(values, "students", list(students), where)
        self._distinct(f"{where}.students", chosen)
        return Corpus(
            name, self._number(f"{where}.vocabulary", values.get("vocabulary"), int, 1),
            tuple(self._known(f"{where}.students", one, students) for one in chosen),
            values.get("raw"), embedded, self._number(f"{where}.train_limit", values.get("train_limit", 0), int, 0),
            self._number(f"{where}.part", values.get("part", 0.0), float, 0.0, 1.0),
            self._known(f"{where}.direction", values.get("direction", "de-en"), dict.fromkeys(("de-en", "en-de"))),
        )  # fmt: skip

    def _student(self, name: str, entry: Any) -> Student:
        where = f"students.{name}"
        values = self._mapping(entry, where, {field.name for field in fields(Student)} - {"name"})
        rates = self._list(values, "learning_rates", None, where)
        whole = {key: self._number(f"{where}.{key}", values.get(key), int, 1)
                 for key in ("updates", "validate_every", "patience")}  # fmt: skip
        if whole["validate_every"] > whole["updates"]:
            raise self._bad(f"{where}.validate_every", whole["validate_every"], f"at most updates, {whole['updates']}")
        positive = tuple(self._number(f"{where}.learning_rates", rate, float, 1e-12) for rate in rates)
        self._distinct(f"{where}.learning_rates", positive, lambda rate: f"{rate:g}")
        return Student(name, self._options(f"{where}.options", values.get("options")), positive, **whole)

    def _teacher(self, name: str, entry: Any) -> Teacher:
        where = f"teachers.{name}"
        values = self._mapping(entry, where, {"options", "updates"})
        options = self._options(f"{where}.options", values.get("options"))
        return Teacher(name, options, self._number(f"{where}.updates", values.get("updates"), int, 0))

    def _loss(self, name: str, entry: Any, teachers: Mapping[str, Teacher]) -> Loss:
        where = f"losses.{name}"
        values = self._mapping(entry, where, {"options", "choices", "teacher"})
        teacher = values.get("teacher")
        if teacher is not None:
            self._known(f"{where}.teacher", teacher, teachers)
        elif "options" not in values:
            raise self._bad(where, sorted(values), "options with a --criterion, or a teacher")
        choices = [self._options(f"{where}.choices", one) for one in self._list(values, "choices", [""], where)]
        return Loss(name, self._options(f"{where}.options", values.get("options", "")), tuple(choices), teacher)

    # --- plain values -----------------------------------------------------------------------------------------

    def _bad(self, where: str, value: Any, expected: str) -> BadInput:
        return BadInput(f"{self._path}: {where}: {value!r}, expected {expected}")

    def _mapping(self, value: Any, where: str, known: set[str]) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise self._bad(where, value, f"a mapping with {', '.join(sorted(known))}")
        for key in value:
            if key not in known:
                raise self._bad(f"{where}, key", key, f"one of {', '.join(sorted(known))}")
        return value

    def _entries(self, top: dict[str, Any], key: str) -> list[tuple[str, Any]]:
        value = top.get(key) or {}
        if not isinstance(value, dict):
            raise self._bad(key, value, "a mapping of names")
        for name in value:
            # Names become those of files.
            if not isinstance(name, str) or not name.replace("-", "").replace("_", "").isalnum():
                raise self._bad(f"{key}, name", name, "letters, digits, - and _")
        return list(value.items())

    def _list(self, values: dict[str, Any], key: str, default: list | None = None, where: str = "") -> list:
        value = values.get(key, default)
        if not isinstance(value, list) or not value and default is None:
            raise self._bad(f"{where}.{key}".lstrip("."), value, "a list of at least one value")
        return value

    def _number(self, where: str, value: Any, kind: type, least: float, most: float | None = None) -> Any:
        allowed = (int, float) if kind is float else (int,)
        # Every comparison with NaN is false, so that it is none of the right ones.
        if isinstance(value, bool) or not isinstance(value, allowed) or not (
            least <= value <= (_MOST if most is None else most)
        ):
            limit = f"at least {least:g} and at most {_MOST if most is None else most:g}"
            raise self._bad(where, value, f"{'a number' if kind is float else 'a whole number'} of {limit}")
        return kind(value)

    def _distinct(self, where: str, values: Sequence, shown: Callable[[Any], str] = str) -> None:
        # Names and folders are made of them: of two that are alike, one would take the other's results for its own.
        if len({shown(value) for value in values}) != len(values):
            raise self._bad(where, list(values), "no value twice, as far as six digits tell")

    def _options(self, where: str, value: Any) -> Options:
        parts = value if isinstance(value, list) and value else [value]
        if not all(isinstance(part, str) for part in parts):
            raise self._bad(where, value, "options as text, or a list of such texts")
        try:
            return tuple(shlex.split(" ".join(parts)))
        except ValueError as error:
            raise self._bad(where, value, f"options as a shell would read them ({error})") from None

    def _known(self, where: str, value: Any, known: Mapping[str, Any]) -> str:
        if not isinstance(value, str) or value not in known:
            raise self._bad(where, value, f"one of {', '.join(known)}")
        return value
