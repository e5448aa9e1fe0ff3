"""Draws noun phrases, pronouns and adverbials."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

from toy_corpus.lexicon import CITIES, NAMES, SEASONS, UNITS, WEEKDAYS, Lexicon, Noun
from toy_corpus.meaning import NounPhrase, TimeOrPlace
from toy_corpus.number_words import english_number, english_year, german_number, german_year

# Weights, here and in grammar.py, were set by eye so that no construction is rare (below 1 % of sentences).
_DETERMINERS = {"def": 36, "indef": 22, "poss": 17, "dies": 7, "number": 7, "viele": 3, "alle": 4, "jed": 2}
_PERSONS = {"1s": 14, "2s": 8, "3m": 18, "3f": 16, "1p": 12, "3p": 14, "2p": 4, "Sie": 7}
_PLURAL_DETERMINERS = frozenset(("number", "viele", "alle"))
_MOST_COUNTED = 999
_YEARS = (1950, 2019)


class PhraseMaker:
    """Draws phrases from the lexicon with a seeded source of randomness."""

    def __init__(self, lexicon: Lexicon, rng: Random) -> None:
        """Keep the word lists and the source of randomness."""
        self.lexicon = lexicon
        self.rng = rng

    def draw(self, weights: dict[str, int]) -> str:
        """A key, by weight."""
        return self.rng.choices(list(weights), list(weights.values()))[0]

    def chance(self, probability: float) -> bool:
        """True with a probability."""
        return self.rng.random() < probability

    def subject(self, classes: Iterable[str]) -> NounPhrase:
        """The subject of a verb: a pronoun, a name or a noun of one of the classes."""
        names = sorted(classes)
        if "person" in names and self.chance(0.45):
            return self.pronoun() if self.chance(0.75) else self.name()
        return self.noun_phrase(names)

    def pronoun(self) -> NounPhrase:
        """A pronoun that stands for a person."""
        return NounPhrase(person=self.draw(_PERSONS), human=True)

    def name(self) -> NounPhrase:
        """A first name."""
        name = self.rng.choice(list(NAMES))
        return NounPhrase(name=name, person="3" + NAMES[name], human=True)

    def noun_phrase(
        self, classes: Iterable[str], owner: NounPhrase | None = None, adjective: float = 0.4
    ) -> NounPhrase:
        """A noun of one of the classes, determiner and adjectives; a possessive may refer to ``owner``."""
        chosen = self.rng.choice(self._class_nouns(classes))
        kind = self.draw(_DETERMINERS)
        if chosen.mass:
            plural, kind = False, kind if kind in ("def", "indef", "poss") else "indef"
        elif chosen.gender == "p":
            plural, kind = True, "def" if kind in ("jed", "number", "viele", "indef") else kind
        else:
            plural = kind in _PLURAL_DETERMINERS or (kind != "jed" and self.chance(0.25))
        human = "person" in chosen.classes
        phrase = NounPhrase(noun=chosen, plural=plural, determiner=kind, human=human)
        phrase.person = "3p" if phrase.gender == "p" else "3" + phrase.gender
        phrase.number = self._count() if kind == "number" else 0
        phrase.owner = self._owner(owner) if kind == "poss" else ""
        choices = self.lexicon.adjectives_for(chosen)
        if choices and self.chance(adjective):
            phrase.adjectives = self.rng.sample(choices, 2 if len(choices) > 1 and self.chance(0.15) else 1)
        return phrase

    def _class_nouns(self, classes: Iterable[str]) -> list[Noun]:
        by_class = self.lexicon.nouns_by_class
        return by_class[self.rng.choice(sorted(name for name in classes if name in by_class))]

    def _count(self) -> int:
        """Two to twelve mostly, sometimes up to 99, rarely up to 999."""
        limit = self.rng.choices((12, 99, _MOST_COUNTED), (6, 3, 1))[0]
        return self.rng.randint(2, limit)

    def _owner(self, owner: NounPhrase | None) -> str:
        """A person code or a name; mostly the given phrase, where a possessive suits it in both languages."""
        fits = owner is not None and owner.human and owner.person != "3n"
        if fits and self.chance(0.7):
            return owner.person
        return self.rng.choice(list(NAMES) if self.chance(0.4) else ["1s", "1p", "2s", "Sie"])

    def adverbial(self, kind: str) -> TimeOrPlace:
        """A time, place, direction or manner phrase, its braces filled alike on both sides."""
        chosen = TimeOrPlace(self.rng.choice(self.lexicon.adverbials[kind]))
        if "owner" in chosen.entry.german:
            chosen.companion = self.name() if self.chance(0.5) else self._relation()
        for name, german, english in self._fillers():
            chosen.german[name], chosen.english[name] = german, english
        return chosen

    def _relation(self) -> NounPhrase:
        phrase = self.noun_phrase(["family"], adjective=0.2)
        if phrase.determiner != "poss":
            phrase.determiner, phrase.owner, phrase.number = "poss", self._owner(None), 0
        return phrase

    def _fillers(self) -> list[tuple[str, str, str]]:
        """(brace, German, English) for every brace a template may hold."""
        tables = (WEEKDAYS, SEASONS, CITIES)
        weekday, season, city = (self.rng.choice(list(words.items())) for words in tables)
        unit, number = self.rng.choice(UNITS), self.rng.randint(2, 30)
        year, hour = self.rng.randint(*_YEARS), self.rng.randint(2, 11)
        return [
            ("weekday", *weekday),
            ("season", *season),
            ("city", *city),
            ("unit_dat", unit[2], ""),
            ("unit", "", unit[4]),
            ("number", german_number(number), english_number(number)),
            ("year", german_year(year), english_year(year)),
            ("hour", german_number(hour), english_number(hour)),
            ("next_hour", german_number(hour + 1), ""),
        ]
