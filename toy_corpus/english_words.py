"""English word forms: verb endings, auxiliaries, pronouns and the indefinite article."""

from __future__ import annotations

from dataclasses import dataclass

SUBJECTS = {
    "1s": "I",
    "2s": "you",
    "3m": "he",
    "3f": "she",
    "3n": "it",
    "1p": "we",
    "2p": "you",
    "3p": "they",
    "Sie": "you",
}
OBJECTS = {
    "1s": "me",
    "2s": "you",
    "3m": "him",
    "3f": "her",
    "3n": "it",
    "1p": "us",
    "2p": "you",
    "3p": "them",
    "Sie": "you",
}
POSSESSIVES = {
    "1s": "my",
    "2s": "your",
    "3m": "his",
    "3f": "her",
    "3n": "its",
    "1p": "our",
    "2p": "your",
    "3p": "their",
    "Sie": "your",
}
_DOUBLED = frozenset(("run", "swim", "put", "get", "shop", "forget", "begin", "stop"))
_INVARIANT = frozenset(("can", "could", "must", "may", "should", "would", "will"))
_IRREGULAR_PAST = {"have": "had", "like": "liked", "want": "wanted"}
_VOWELS = "aeiou"


@dataclass(frozen=True)
class VerbForms:
    """An English verb; ``particle`` follows it, and stands behind an object pronoun when ``movable``."""

    base: str
    past: str
    participle: str
    particle: str = ""
    movable: bool = False

    @classmethod
    def read(cls, triple: tuple[str, str, str]) -> VerbForms:
        """The forms of a lexicon entry such as ``("pick+up", "picked", "picked")``."""
        base, past, participle = triple
        movable = "+" in base
        head, _, particle = base.replace("+", "_").partition("_")
        return cls(head, past, participle, particle.replace("_", " "), movable)


@dataclass(frozen=True)
class Finite:
    """A finite verb before agreement; an auxiliary is negated and inverted without do."""

    base: str
    past_form: str = ""
    past: bool = False

    @classmethod
    def of_phrase(cls, phrase: str, past: bool) -> tuple[Finite, list[str]]:
        """Split ``be able to`` into its finite verb and the words that follow."""
        head, *rest = phrase.split()
        return cls(head, _IRREGULAR_PAST.get(head, ""), past), rest

    def is_auxiliary(self, rest: list[str]) -> bool:
        """Whether no ``do`` is needed: be, modals, and ``have`` before a participle (not in ``have to``)."""
        return self.base == "be" or self.base in _INVARIANT or (self.base == "have" and rest[:1] != ["to"])

    def agree(self, person: str) -> str:
        """The form for a person."""
        if self.base in _INVARIANT:
            return self.base
        if self.base == "be":
            return be(person, self.past)
        if self.past:
            return self.past_form
        return third(self.base) if is_third(person) else self.base


def is_third(person: str) -> bool:
    """Third person singular."""
    return person in ("3m", "3f", "3n")


def be(person: str, past: bool) -> str:
    """A finite form of be."""
    if past:
        return "was" if person == "1s" or is_third(person) else "were"
    return "am" if person == "1s" else "is" if is_third(person) else "are"


def third(base: str) -> str:
    """Third person singular present."""
    if base == "have":
        return "has"
    if base.endswith("y") and base[-2] not in _VOWELS:
        return base[:-1] + "ies"
    return base + ("es" if base.endswith(("s", "sh", "ch", "x", "o", "z")) else "s")


def gerund(base: str) -> str:
    """The -ing form."""
    if base in _DOUBLED:
        return base + base[-1] + "ing"
    if base.endswith("e") and not base.endswith("ee"):
        return base[:-1] + "ing"
    return base + "ing"


def article(word: str) -> str:
    """The indefinite article before a word, by spelling (the word lists hold no exception but ``hour``)."""
    return "an" if word[0].lower() in _VOWELS or word.startswith("hour") else "a"
