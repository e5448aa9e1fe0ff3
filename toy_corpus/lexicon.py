"""The word lists of the embedded corpus: typed entries read from ``lexicon/*.csv``.

A cell of English words may hold synonyms, the usual one first: ``big/large``. A German word that stands on
several lines (``Bank``, ``Schloss``, ``aufgeben``) is ambiguous: its class, plural, frame or object decides
how it is translated.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "lexicon"

CITIES = {
    "Berlin": "Berlin",
    "Hamburg": "Hamburg",
    "München": "Munich",
    "Köln": "Cologne",
    "Wien": "Vienna",
    "Zürich": "Zurich",
    "Paris": "Paris",
    "Rom": "Rome",
    "Prag": "Prague",
    "London": "London",
    "Venedig": "Venice",
    "Brüssel": "Brussels",
    "Warschau": "Warsaw",
    "Nürnberg": "Nuremberg",
}
NAMES = {
    "Anna": "f",
    "Peter": "m",
    "Maria": "f",
    "Thomas": "m",
    "Julia": "f",
    "Karl": "m",
    "Sophie": "f",
    "Paul": "m",
    "Emma": "f",
    "Felix": "m",
    "Clara": "f",
    "Jonas": "m",
    "Lena": "f",
    "Max": "m",
}
WEEKDAYS = {
    "Montag": "Monday",
    "Dienstag": "Tuesday",
    "Mittwoch": "Wednesday",
    "Donnerstag": "Thursday",
    "Freitag": "Friday",
    "Samstag": "Saturday",
    "Sonntag": "Sunday",
}
SEASONS = {"Frühling": "spring", "Sommer": "summer", "Herbst": "autumn", "Winter": "winter"}
# German singular, plural, dative plural; English singular, plural
UNITS = [
    ("Tag", "Tage", "Tagen", "day", "days"),
    ("Woche", "Wochen", "Wochen", "week", "weeks"),
    ("Monat", "Monate", "Monaten", "month", "months"),
    ("Jahr", "Jahre", "Jahren", "year", "years"),
    ("Stunde", "Stunden", "Stunden", "hour", "hours"),
    ("Minute", "Minuten", "Minuten", "minute", "minutes"),
]


@dataclass(frozen=True)
class Noun:
    """A noun; ``gender`` is m, f, n or p (plural only); ``weak`` nouns take -(e)n in the singular too."""

    german: str
    gender: str
    plural: str
    english: tuple[str, ...]
    english_plural: tuple[str, ...]
    classes: frozenset[str]
    weak: bool = False

    @property
    def mass(self) -> bool:
        """Whether the noun cannot be counted (milk)."""
        return not self.plural


@dataclass(frozen=True)
class Verb:
    """One sense of a German verb: its forms, what it takes, and its English translations.

    ``frame`` is intr, acc, dat, ``dat acc``, dir (needs a direction), swap (the German dative is the English
    subject: ``Das Buch gefällt mir``), dass, ob, or ``preposition:case``. ``english`` holds (base, past,
    participle) triples; ``+`` in a base marks a particle that stands after a pronoun (``pick it up``), ``_``
    one that never moves.
    """

    infinitive: str
    prefix: str
    reflexive: bool
    third: str
    participle: str
    auxiliary: str
    frame: str
    subjects: frozenset[str]
    objects: frozenset[str]
    english: tuple[tuple[str, str, str], ...]
    features: frozenset[str]


@dataclass(frozen=True)
class Adjective:
    """An adjective with its comparative (empty: none) and the noun classes it goes with in this sense."""

    german: str
    comparative: str
    english: tuple[str, ...]
    english_comparative: tuple[str, ...]
    classes: frozenset[str]


@dataclass(frozen=True)
class Adverbial:
    """A time, place, direction or manner phrase; braces are filled in alike on both sides."""

    kind: str
    german: str
    english: tuple[str, ...]
    position: str


@dataclass(frozen=True)
class Modal:
    """A modal verb (or the adverb ``gern``, which English turns into one)."""

    infinitive: str
    singular: str
    second: str
    past: str
    english: tuple[str, ...]
    english_past: tuple[str, ...]


MODALS = [
    Modal("können", "kann", "kannst", "konnte", ("can", "be able to"), ("could", "be able to")),
    Modal("müssen", "muss", "musst", "musste", ("must", "have to"), ("have to",)),
    Modal("wollen", "will", "willst", "wollte", ("want to",), ("want to",)),
    Modal("dürfen", "darf", "darfst", "durfte", ("may", "be allowed to"), ("be allowed to",)),
    Modal("sollen", "soll", "sollst", "sollte", ("should", "be supposed to"), ("be supposed to",)),
    Modal("möchten", "möchte", "möchtest", "wollte", ("would like to",), ("want to",)),
    Modal("gern", "", "", "", ("like to",), ("like to",)),
]


@dataclass
class Lexicon:
    """All word lists, with the nouns and adjectives also by class."""

    nouns: list[Noun]
    verbs: list[Verb]
    adjectives: list[Adjective]
    adverbials: dict[str, list[Adverbial]]
    nouns_by_class: dict[str, list[Noun]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Index the nouns by class, in the order of the file (the generator must be deterministic)."""
        for noun in self.nouns:
            for name in sorted(noun.classes):
                self.nouns_by_class.setdefault(name, []).append(noun)

    def adjectives_for(self, noun: Noun) -> list[Adjective]:
        """The adjectives that make sense with a noun."""
        return [adjective for adjective in self.adjectives if adjective.classes & noun.classes]


def load_lexicon(folder: Path = FOLDER) -> Lexicon:
    """Read the four word lists.

    Raises:
        FileNotFoundError: a list is missing.
    """
    adverbials: dict[str, list[Adverbial]] = {}
    for row in _rows(folder / "adverbials.csv"):
        entry = Adverbial(row["kind"], row["german"], _synonyms(row["english"]), row["position"])
        adverbials.setdefault(entry.kind, []).append(entry)
    return Lexicon(
        [_noun(row) for row in _rows(folder / "nouns.csv")],
        [_verb(row) for row in _rows(folder / "verbs.csv")],
        [_adjective(row) for row in _rows(folder / "adjectives.csv")],
        adverbials,
    )


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as handle:
        return list(csv.DictReader(handle))


def _synonyms(cell: str) -> tuple[str, ...]:
    return tuple(cell.split("/"))


def _noun(row: dict[str, str]) -> Noun:
    gender, weak = row["gender"][0], row["gender"].endswith("w")
    return Noun(
        row["german"],
        gender,
        row["plural"],
        _synonyms(row["english"]),
        _synonyms(row["english_plural"]),
        frozenset(row["classes"].split()),
        weak,
    )


def _adjective(row: dict[str, str]) -> Adjective:
    return Adjective(
        row["german"],
        row["comparative"],
        _synonyms(row["english"]),
        _synonyms(row["english_comparative"]),
        frozenset(row["classes"].split()),
    )


def _verb(row: dict[str, str]) -> Verb:
    words = row["german"].split()
    prefix, bar, infinitive = words[-1].rpartition("|")
    english = tuple(tuple(triple.split()) for triple in row["english"].split("/"))
    return Verb(
        infinitive,
        prefix if bar else "",
        words[0] == "sich",
        row["third"],
        row["participle"],
        row["auxiliary"],
        row["frame"],
        frozenset(row["subject"].split()),
        frozenset(row["object"].split()),
        english,
        frozenset(row["features"].split()),
    )
