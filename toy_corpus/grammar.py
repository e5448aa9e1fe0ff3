"""Draws meanings: the clauses and sentences of the embedded corpus, and their frequencies."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from toy_corpus.lexicon import MODALS, Lexicon, Verb
from toy_corpus.meaning import Clause, NounPhrase, Relative, Sentence
from toy_corpus.phrases import PhraseMaker

_KINDS = {
    "statement": 32,
    "subordinate": 20,
    "reported": 8,
    "coordinated": 9,
    "um": 6,
    "question": 7,
    "asking": 4,
    "copula": 8,
    "passive": 6,
}
_TENSES = {"past": 34, "present": 22, "future": 14, "will": 4, "progressive": 8, "perfect": 8, "modal": 14, "since": 5}
# (conjunction, tense of the main clause, tense of the subordinate clause): weight
_SUBORDINATE = {
    ("weil", "past", "past"): 6,
    ("weil", "present", "present"): 3,
    ("obwohl", "past", "past"): 4,
    ("als", "past", "past"): 4,
    ("während", "past", "past"): 2,
    ("bevor", "past", "past"): 3,
    ("nachdem", "past", "pluperfect"): 4,
    ("wenn", "present", "present"): 5,
    ("wenn", "future", "present"): 3,
    ("sobald", "future", "present"): 3,
}
# the list of time phrases that goes with a tense; modal and pluperfect have none
_TIMES = {
    "past": "past",
    "future": "future",
    "will": "future",
    "present": "present",
    "progressive": "progressive",
    "perfect": "perfect",
    "since": "since",
}
_NEEDS_TIME = frozenset(("future", "progressive", "perfect", "since"))
_NEGATABLE = frozenset(("past", "present", "future", "will"))


class Grammar:
    """Draws sentences from the lexicon with a seeded source of randomness."""

    def __init__(self, lexicon: Lexicon, rng: Random) -> None:
        """Sort the verbs by what they can do."""
        self._make = PhraseMaker(lexicon, rng)
        self._reporting = [verb for verb in lexicon.verbs if verb.frame in ("dass", "ob")]
        self._verbs = [verb for verb in lexicon.verbs if verb.frame not in ("dass", "ob")]
        self._human = [verb for verb in self._verbs if "person" in verb.subjects and verb.frame != "swap"]
        self._passive = [verb for verb in self._verbs if "passive" in verb.features]
        self._kinds = {
            "statement": self._statement,
            "subordinate": self._subordinate,
            "reported": self._reported,
            "coordinated": self._coordinated,
            "um": self._purpose,
            "question": self._question,
            "asking": self._asking,
            "copula": self._copula_sentence,
            "passive": self._passive_sentence,
        }

    def sentence(self) -> Sentence:
        """One sentence of a kind drawn from the shares above."""
        return self._kinds[self._make.draw(_KINDS)]()

    def _tense(self, verb: Verb) -> str:
        """A tense or ``modal`` that the verb allows."""
        while True:
            tense = self._make.draw(_TENSES)
            if tense == "since" and "since" not in verb.features:
                continue
            if tense in ("progressive", "modal") and ("stative" in verb.features or verb.frame == "swap"):
                continue
            return tense

    def _clause(
        self, tense: str = "", subject: NounPhrase | None = None, brief: bool = False, verbs: list[Verb] | None = None
    ) -> Clause:
        """A clause; ``tense`` and ``subject`` may be given, ``brief`` leaves out what makes it long."""
        make = self._make
        choices = verbs or (self._verbs if subject is None else self._human)
        verb = make.rng.choice(choices)
        drawn = tense or self._tense(verb)
        clause = Clause(subject or make.subject(verb.subjects), verb, tense=drawn)
        if drawn == "modal":
            clause.tense = "past" if make.chance(0.35) else "present"
            clause.modal = make.rng.choice(MODALS)
        self._add_objects(clause, brief)
        self._add_adverbials(clause, drawn, brief)
        if drawn in _NEGATABLE and make.chance(0.13) or drawn == "modal" and make.chance(0.2):
            self._negate(clause)
        return clause

    def _add_objects(self, clause: Clause, brief: bool) -> None:
        """Objects by the frame of the verb; no object repeats the subject's pronoun (a reflexive would)."""
        make, verb = self._make, clause.verb
        if verb.frame in ("intr", "dir"):
            return
        if verb.frame in ("dat", "dat acc", "swap"):
            pronoun = make.chance(0.35)
            receiver = self._other_pronoun(clause.subject) if pronoun else make.noun_phrase(["person"])
            if verb.frame == "swap":
                clause.direct = receiver
                return
            clause.indirect = receiver
        if verb.frame == "acc" and "person" in verb.objects and make.chance(0.3):
            clause.direct = self._other_pronoun(clause.subject)
        elif verb.frame != "dat":
            clause.direct = make.noun_phrase(verb.objects, owner=clause.subject)
            if not brief and make.chance(0.12) and clause.direct.determiner in ("def", "indef"):
                clause.direct.relative = self._relative(clause.direct)

    def _other_pronoun(self, subject: NounPhrase) -> NounPhrase:
        """A pronoun of another person than the subject (du and Sie are one here)."""
        taken = "2S" if subject.person[0] in "2S" else subject.person[0]
        pronoun = self._make.pronoun()
        while pronoun.person[0] in taken:
            pronoun = self._make.pronoun()
        return pronoun

    def _relative(self, head: NounPhrase) -> Relative | None:
        """A relative clause in which the head does something (people) or something is done to it."""
        classes = head.noun.classes
        if head.human:
            return Relative(self._clause("past", subject=_head_of(head), brief=True), "nom")
        verbs = [verb for verb in self._human if verb.frame == "acc" and verb.objects & classes]
        if not verbs:
            return None
        inner = self._clause("past", subject=self._make.subject(["person"]), brief=True, verbs=verbs)
        inner.direct, inner.negated = None, False
        return Relative(inner, "acc")

    def _add_adverbials(self, clause: Clause, tense: str, brief: bool) -> None:
        make = self._make
        if tense in _NEEDS_TIME or (tense in _TIMES and make.chance(0.2 if brief else 0.55)):
            clause.time = make.adverbial(_TIMES[tense])
        if clause.verb.frame == "dir":
            clause.place = make.adverbial("direction")
        elif "place" in clause.verb.features or make.chance(0.08 if brief else 0.25):
            clause.place = make.adverbial("place")
        still = "stative" in clause.verb.features or tense in ("perfect", "since")
        if "person" in clause.verb.subjects and not still and make.chance(0.05 if brief else 0.18):
            clause.manner = make.adverbial("manner")
        if clause.time is not None and make.chance(0.35):
            clause.fronted = "time"
            clause.english_fronted = clause.time.entry.position == "end" and make.chance(0.6)
        elif clause.place is not None and clause.verb.frame != "dir" and make.chance(0.15):
            clause.fronted = "place"

    def _negate(self, clause: Clause) -> None:
        """Negate by ``kein`` before an indefinite object, else by ``nicht``; not beside *nie* and others."""
        if clause.time is not None and clause.time.entry.position == "mid":
            return
        direct = clause.direct
        indefinite = direct is not None and direct.determiner in ("indef", "number", "viele", "alle", "jed")
        if indefinite and clause.verb.frame in ("acc", "dat acc"):
            direct.determiner, direct.number = "kein", 0
        clause.negated = True

    def _statement(self) -> Sentence:
        clause = self._clause()
        if clause.subject.determiner in ("def", "indef") and self._make.chance(0.2):
            clause.subject.relative = self._relative(clause.subject)
        return Sentence("statement", clause)

    def _subordinate(self) -> Sentence:
        make = self._make
        joint, main_tense, other_tense = make.rng.choices(list(_SUBORDINATE), list(_SUBORDINATE.values()))[0]
        other = self._clause(other_tense, brief=True)
        subject = self._anaphor(other.subject) if make.chance(0.5) else None
        main = self._clause(main_tense, subject=subject, brief=True)
        if main_tense == "future" and other.time is not None:
            other.time, other.fronted = None, ""
        first = subject is not None or make.chance(0.35)
        return Sentence("subordinate", main, other, joint, joint_first=first)

    def _anaphor(self, phrase: NounPhrase) -> NounPhrase | None:
        """The pronoun that takes up a person; None where the languages differ (das Mädchen) or for things."""
        if not phrase.human or phrase.person == "3n":
            return None
        return NounPhrase(person=phrase.person, human=True)

    def _reported(self) -> Sentence:
        make = self._make
        verb = make.rng.choice(self._reporting)
        main = Clause(make.subject(["person"]), verb, tense=make.draw({"past": 6, "present": 4}))
        other = self._clause(make.draw({"past": 5, "future": 2, "present": 3}), brief=True)
        return Sentence("subordinate", main, other, verb.frame)

    def _coordinated(self) -> Sentence:
        """Two clauses; the second takes up the subject, or the object of the first by its German gender."""
        make = self._make
        tense = make.draw({"past": 3, "present": 1})
        first = self._clause(tense, brief=True)
        thing = first.direct
        if thing is not None and thing.noun is not None and not thing.noun.mass and make.chance(0.6):
            second = self._copula(
                NounPhrase(person=thing.person, human=thing.human and thing.person != "3n"), tense, thing
            )
        else:
            second = self._clause(tense, subject=self._anaphor(first.subject) or make.name(), brief=True)
        if second is None or second.verb is None:
            _affirm(first)
        joint = make.draw({"aber": 5, "und": 4, "denn": 3})
        return Sentence("coordinated", first, second or self._clause(tense, brief=True), joint)

    def _copula(self, subject: NounPhrase, tense: str, described: NounPhrase) -> Clause | None:
        choices = self._make.lexicon.adjectives_for(described.noun)
        if not choices:
            return None
        return Clause(subject, tense=tense, adjective=self._make.rng.choice(choices), negated=self._make.chance(0.2))

    def _copula_sentence(self) -> Sentence:
        make = self._make
        subject = make.noun_phrase(list(make.lexicon.nouns_by_class), adjective=0.1)
        clause = self._copula(subject, make.draw({"present": 6, "past": 4, "future": 1}), subject)
        if clause is None:
            return self._statement()
        if clause.adjective.comparative and make.chance(0.45):
            clause.than = make.noun_phrase(sorted(clause.adjective.classes), adjective=0.1)
        elif make.chance(0.4) and clause.tense == "past":
            clause.time = make.adverbial("past")
        return Sentence("statement", clause)

    def _passive_sentence(self) -> Sentence:
        make = self._make
        verb = make.rng.choice(self._passive)
        agent = make.noun_phrase(sorted(verb.subjects), adjective=0.2) if make.chance(0.5) else NounPhrase()
        tense = make.draw({"past": 6, "present": 3})
        clause = Clause(agent, verb, direct=make.noun_phrase(verb.objects), tense=tense, passive=True)
        self._add_adverbials(clause, tense, brief=True)
        return Sentence("statement", clause)

    def _purpose(self) -> Sentence:
        """Somebody goes somewhere, or does something, in order to do something else."""
        tense, subject = self._make.draw({"past": 5, "future": 3}), self._make.subject(["person"])
        main = self._clause(tense, subject, brief=True)
        other = replace(self._clause("present", main.subject, brief=True), time=None, modal=None)
        _affirm(main)
        _affirm(other)
        return Sentence("um", main, other, "um")

    def _question(self) -> Sentence:
        clause = self._clause(subject=self._make.subject(["person"]) if self._make.chance(0.5) else None)
        return Sentence("question", replace(clause, fronted="", english_fronted=False))

    def _asking(self) -> Sentence:
        """Where, when and why; what is asked for is not told."""
        kind = self._make.draw({"where": 3, "when": 3, "why": 3})
        clause = self._clause(self._make.draw({"past": 6, "present": 3}), brief=True)
        if kind == "where" and clause.verb.frame != "dir":
            clause.place = None
        if kind == "when":
            clause.time = None
        return Sentence(kind, replace(clause, fronted="", english_fronted=False))


def _affirm(clause: Clause) -> None:
    """Take back a negation."""
    clause.negated = False
    if clause.direct is not None and clause.direct.determiner == "kein":
        clause.direct.determiner = "indef"


def _head_of(phrase: NounPhrase) -> NounPhrase:
    """The noun phrase as silent subject of its own relative clause: same agreement, no words of its own."""
    return NounPhrase(person=phrase.person, human=phrase.human)
