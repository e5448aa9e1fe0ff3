"""The meaning of a sentence, independent of the language: noun phrases, clauses and whole sentences."""

from __future__ import annotations

from dataclasses import dataclass, field

from toy_corpus.lexicon import Adjective, Adverbial, Modal, Noun, Verb


@dataclass
class NounPhrase:
    """A noun, name or pronoun with what goes with it.

    ``person`` is 1s, 2s, 3m, 3f, 3n, 1p, 2p, 3p or Sie; a pronoun has nothing else, others agree by it.
    ``determiner`` is def, indef, dies, jed, poss, number, viele, alle, kein or empty; ``owner`` is a person
    code (possessive) or a name (``Annas``).
    """

    noun: Noun | None = None
    plural: bool = False
    determiner: str = ""
    owner: str = ""
    number: int = 0
    adjectives: list[Adjective] = field(default_factory=list)
    name: str = ""
    person: str = ""
    human: bool = False
    relative: Relative | None = None

    @property
    def is_pronoun(self) -> bool:
        """Whether only a person is given."""
        return self.noun is None and not self.name

    @property
    def gender(self) -> str:
        """Grammatical gender of the German noun: m, f, n, or p for every plural."""
        if self.noun is None:
            return self.person[1] if self.person.startswith("3") else "m"
        return "p" if self.plural else self.noun.gender


@dataclass
class Relative:
    """A relative clause in which the head noun is the subject (nom) or the direct object (acc)."""

    clause: Clause
    role: str


@dataclass
class TimeOrPlace:
    """A chosen adverbial, the values of its braces in both languages, and whom ``owner`` names."""

    entry: Adverbial
    german: dict[str, str] = field(default_factory=dict)
    english: dict[str, str] = field(default_factory=dict)
    companion: NounPhrase | None = None


@dataclass
class Clause:
    """Who does what to whom, when, where and how.

    ``tense`` is present, past, perfect, pluperfect, future (German present), will (German werden),
    progressive or since. ``adjective`` makes it a copula clause (``than``: comparison). In a ``passive`` one
    ``direct`` undergoes it, and the subject is the agent, or empty. ``fronted`` (time or place) is what opens
    the German main clause.
    """

    subject: NounPhrase
    verb: Verb | None = None
    direct: NounPhrase | None = None
    indirect: NounPhrase | None = None
    tense: str = "present"
    modal: Modal | None = None
    negated: bool = False
    passive: bool = False
    adjective: Adjective | None = None
    than: NounPhrase | None = None
    time: TimeOrPlace | None = None
    place: TimeOrPlace | None = None
    manner: TimeOrPlace | None = None
    fronted: str = ""
    english_fronted: bool = False


@dataclass
class Sentence:
    """A clause, perhaps with a second one; ``kind`` says how they are joined.

    ``statement``, ``question``, a question word (``where``, ``why``, ``when``), or with a second clause
    ``coordinated``, ``subordinate`` (also reported speech) and ``um`` (in order to). ``joint`` is the German
    conjunction; ``joint_first`` puts the second clause first.
    """

    kind: str
    main: Clause
    other: Clause | None = None
    joint: str = ""
    joint_first: bool = False
