"""Meaning to English: do-support, auxiliaries, particles, and synonyms drawn with a skewed choice."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from toy_corpus.english_words import OBJECTS, POSSESSIVES, SUBJECTS, Finite, VerbForms, article, gerund, is_third
from toy_corpus.meaning import Clause, NounPhrase, Relative, Sentence, TimeOrPlace
from toy_corpus.number_words import english_number

# Probability of the usual one of several synonyms. Below 1 a perfect BLEU is out of reach, as in real text.
USUAL = 0.75
_QUESTION_WORDS = frozenset(("where", "why", "when"))
_JOINTS = {
    "weil": ("because", "since"),
    "obwohl": ("although", "even though"),
    "wenn": ("when", "if"),
    "als": ("when",),
    "während": ("while",),
    "bevor": ("before",),
    "nachdem": ("after",),
    "dass": ("that", ""),
    "ob": ("whether", "if"),
    "und": ("and",),
    "aber": ("but",),
    "denn": ("because", "for"),
    "um": ("to", "in order to"),
    "sobald": ("as soon as",),
}
_DETERMINERS = {"def": "the", "jed": "every", "alle": "all the", "viele": "many"}


class EnglishWriter:
    """Writes English sentences; ``rng`` draws among synonyms and optional word orders."""

    def __init__(self, rng: Random) -> None:
        """Keep the source of randomness."""
        self._rng = rng

    def sentence(self, meaning: Sentence) -> str:
        """The English sentence, with capital and final mark."""
        if meaning.kind == "question":
            text, mark = self.clause(meaning.main, question=True), "?"
        elif meaning.kind in _QUESTION_WORDS:
            text, mark = f"{meaning.kind} {self.clause(meaning.main, question=True)}", "?"
        else:
            text, mark = self._joined(meaning), "."
        text = " ".join(text.split())
        return text[0].upper() + text[1:] + mark

    def _pick(self, synonyms: Sequence):
        if len(synonyms) == 1 or self._rng.random() < USUAL:
            return synonyms[0]
        return self._rng.choice(synonyms[1:])

    def _joined(self, meaning: Sentence) -> str:
        main, other = meaning.main, meaning.other
        if other is None:
            return self.clause(main)
        joint = self._pick(_JOINTS[meaning.joint])
        if meaning.kind == "um":
            return f"{self.clause(main)} {joint} {self._infinitive(other)}"
        if meaning.kind == "coordinated":
            return f"{self.clause(main)}{'' if joint == 'because' else ','} {joint} {self.clause(other)}"
        if meaning.joint_first:
            return f"{joint} {self.clause(other)}, {self.clause(main)}"
        return f"{self.clause(main)} {joint} {self.clause(other)}"

    def clause(self, meaning: Clause, question: bool = False, subject: str | None = None) -> str:
        """A clause; ``question`` puts the auxiliary first, ``subject`` replaces the subject's words."""
        swapped = meaning.verb is not None and meaning.verb.frame == "swap"
        doer, thing = (meaning.direct, meaning.subject) if swapped else (meaning.subject, meaning.direct)
        if meaning.passive:
            doer, thing = meaning.direct, None
        words = self.noun_phrase(doer, "subject") if subject is None else subject
        forms = None if meaning.verb is None else VerbForms.read(self._pick(meaning.verb.english))
        finite, rest = self._verb_group(meaning, forms)
        head = self._finite(finite, rest, doer.person, meaning, words, question)
        front, end = self._adverbials(meaning, question)
        return " ".join(front + head + self._after_verb(meaning, forms, thing) + end)

    def _infinitive(self, meaning: Clause) -> str:
        forms = VerbForms.read(self._pick(meaning.verb.english))
        words = self._mid_adverbs(meaning) + [forms.base] + self._after_verb(meaning, forms, meaning.direct)
        return " ".join(words + self._adverbials(meaning, keep_behind=True)[1])

    def _adverbials(self, meaning: Clause, keep_behind: bool) -> tuple[list[str], list[str]]:
        """What goes before the subject, and after the objects: manner, place, time."""
        front, end = [], []
        for part in (meaning.manner, meaning.place, meaning.time):
            if part is None or part.entry.position == "mid":
                continue
            fronted = part is meaning.time and meaning.english_fronted and not keep_behind
            (front if fronted else end).append(self._adverbial(part))
        return front, end

    def _adverbial(self, chosen: TimeOrPlace) -> str:
        owner = {} if chosen.companion is None else {"owner": self.noun_phrase(chosen.companion, "object")}
        return self._pick(chosen.entry.english).format(**chosen.english, **owner)

    def _mid_adverbs(self, meaning: Clause) -> list[str]:
        parts = (meaning.time, meaning.manner)
        return [self._adverbial(part) for part in parts if part is not None and part.entry.position == "mid"]

    def _finite(
        self, finite: Finite, rest: list[str], person: str, meaning: Clause, subject: str, question: bool
    ) -> list[str]:
        """Subject, verb group, negation and adverbs before the verb, in statement or question order."""
        middle = self._mid_adverbs(meaning)
        negation = ["not"] if meaning.negated else []
        if finite.is_auxiliary(rest):
            verb = finite.agree(person)
        elif question or negation:
            verb = "did" if finite.past else "does" if is_third(person) else "do"
            rest = [finite.base] + rest
        else:
            return [subject] + middle + [finite.agree(person)] + rest
        opening = [verb, subject] if question else [subject, verb]
        return opening + negation + middle + rest

    def _verb_group(self, meaning: Clause, forms: VerbForms | None) -> tuple[Finite, list[str]]:
        """The finite verb of a clause and the verb words behind it: tense, voice and modal."""
        tense, past = meaning.tense, meaning.tense == "past"
        future = self._pick(("will", "be going to")) if tense == "future" else "will"
        if forms is None:
            return (Finite("will"), ["be"]) if tense in ("future", "will") else (Finite("be", past=past), [])
        if meaning.passive:
            return Finite("be", past=past), [forms.participle]
        if meaning.modal is not None:
            finite, rest = Finite.of_phrase(self._modal(meaning), past)
            return finite, rest + [forms.base]
        if tense in ("future", "will"):
            finite, rest = Finite.of_phrase(future, False)
            return finite, rest + [forms.base]
        if tense == "progressive":
            return Finite("be"), [gerund(forms.base)]
        if tense == "since":
            return Finite("have"), ["been", gerund(forms.base)]
        if tense in ("perfect", "pluperfect"):
            return Finite("have", "had", tense == "pluperfect"), [forms.participle]
        return Finite(forms.base, forms.past, past), []

    def _modal(self, meaning: Clause) -> str:
        """The English modal; *nicht müssen* is not *must not*, which is what *nicht dürfen* says."""
        past = meaning.tense == "past"
        if meaning.negated and not past:
            if meaning.modal.infinitive == "müssen":
                return "have to"
            if meaning.modal.infinitive == "dürfen":
                return self._pick(("must", "be allowed to"))
        return self._pick(meaning.modal.english_past if past else meaning.modal.english)

    def _after_verb(self, meaning: Clause, forms: VerbForms | None, thing: NounPhrase | None) -> list[str]:
        """Particle and objects, predicate, or by-phrase."""
        if forms is None:
            return [self._predicate(meaning)]
        particle = [forms.particle] if forms.particle else []
        if meaning.passive:
            agent = ["by " + self.noun_phrase(meaning.subject, "object")] if meaning.subject.person else []
            return particle + agent
        if meaning.verb.frame == "dat":
            thing = meaning.indirect
        if thing is None:
            return particle
        words = self.noun_phrase(thing, "object", negated=meaning.negated)
        if meaning.verb.frame == "dat acc":
            return self._two_objects(meaning, particle, words, thing.is_pronoun)
        if forms.movable and (thing.is_pronoun or (thing.relative is None and self._rng.random() > USUAL)):
            return [words] + particle
        return particle + [words]

    def _two_objects(self, meaning: Clause, particle: list[str], thing: str, pronoun: bool) -> list[str]:
        """*give him the book* or *give it to him*, by verb and chance."""
        receiver = self.noun_phrase(meaning.indirect, "object")
        features = meaning.verb.features
        preposition = "for" if "for" in features else "to"
        if "to" in features or pronoun or particle or self._rng.random() > USUAL:
            return ([thing] + particle if pronoun else particle + [thing]) + [preposition, receiver]
        return [receiver, thing]

    def _predicate(self, meaning: Clause) -> str:
        adjective = meaning.adjective
        if meaning.than is None:
            return self._pick(adjective.english)
        return f"{self._pick(adjective.english_comparative)} than {self.noun_phrase(meaning.than, 'object')}"

    def noun_phrase(self, phrase: NounPhrase, role: str, negated: bool = False) -> str:
        """A noun phrase as ``subject`` or ``object``, with its relative clause."""
        if phrase.is_pronoun:
            person = phrase.person if phrase.human or not is_third(phrase.person) else "3n"
            return (SUBJECTS if role == "subject" else OBJECTS)[person]
        if phrase.name:
            return phrase.name
        noun = self._pick(phrase.noun.english_plural if phrase.plural else phrase.noun.english)
        words = [self._pick(adjective.english) for adjective in phrase.adjectives] + [noun]
        determiner = self._determiner(phrase, words[0], negated)
        text = " ".join([determiner] + words if determiner else words)
        return text if phrase.relative is None else f"{text} {self._relative(phrase.relative, phrase.human)}"

    def _determiner(self, phrase: NounPhrase, following: str, negated: bool) -> str:
        kind = phrase.determiner
        if kind == "dies":
            return "these" if phrase.plural else "this"
        if kind == "number":
            return english_number(phrase.number)
        if kind == "poss":
            return POSSESSIVES.get(phrase.owner) or phrase.owner + "'s"
        if kind == "kein" and (phrase.plural or phrase.noun.mass):
            return "any" if negated else "no"
        if kind in ("indef", "kein", "") and not (phrase.plural or phrase.noun.mass):
            return article(following)
        return _DETERMINERS.get(kind, "")

    def _relative(self, relative: Relative, human: bool) -> str:
        if relative.role == "nom":
            return self.clause(relative.clause, subject="who" if human else self._pick(("that", "which")))
        word = self._pick(("", "who" if human else "that"))
        return f"{word} {self.clause(relative.clause)}"
