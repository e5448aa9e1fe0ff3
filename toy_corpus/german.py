"""Meaning to German: cases, articles, adjective endings, verb forms and the order of the German clause."""

from __future__ import annotations

from toy_corpus.lexicon import Modal, Verb
from toy_corpus.meaning import Clause, NounPhrase, Relative, Sentence, TimeOrPlace
from toy_corpus.number_words import german_number

_GENDERS = "mfnp"
# Endings by case, in the order m f n plural. "-" is no ending.
_DEFINITE = {"nom": "der die das die", "acc": "den die das die", "dat": "dem der dem den"}
_LIKE_DIES = {"nom": "er e es e", "acc": "en e es e", "dat": "em er em en"}
_LIKE_EIN = {"nom": "- e - e", "acc": "en e - e", "dat": "em er em en"}
_AFTER_DEFINITE = {"nom": "e e e en", "acc": "en e e en", "dat": "en en en en"}
_AFTER_EIN = {"nom": "er e es en", "acc": "en e es en", "dat": "en en en en"}
_BARE = {"nom": "er e es e", "acc": "en e es e", "dat": "em er em en"}
# nominative, accusative, dative, reflexive accusative, possessive stem
_PRONOUNS = {
    "1s": "ich mich mir mich mein",
    "2s": "du dich dir dich dein",
    "3m": "er ihn ihm sich sein",
    "3f": "sie sie ihr sich ihr",
    "3n": "es es ihm sich sein",
    "1p": "wir uns uns uns unser",
    "2p": "ihr euch euch euch euer",
    "3p": "sie sie ihnen sich ihr",
    "Sie": "Sie Sie Ihnen sich Ihr",
}
_CASES = ("nom", "acc", "dat", "reflexive", "possessive")
_TO_BE = {"1s": "bin", "2s": "bist", "1p": "sind", "2p": "seid", "3p": "sind", "Sie": "sind"}
_TO_HAVE = {"1s": "habe", "2s": "hast", "1p": "haben", "2p": "habt", "3p": "haben", "Sie": "haben"}
_WAS = {"1s": "war", "2s": "warst", "1p": "waren", "2p": "wart", "3p": "waren", "Sie": "waren"}
_BECOME = {"1s": "werde", "2s": "wirst", "1p": "werden", "2p": "werdet", "3p": "werden", "Sie": "werden"}
_BECAME = {"1s": "wurde", "2s": "wurdest", "1p": "wurden", "2p": "wurdet", "3p": "wurden", "Sie": "wurden"}
_HAD = {"1s": "hatte", "2s": "hattest", "1p": "hatten", "2p": "hattet", "3p": "hatten", "Sie": "hatten"}
_THIRD = {"had": "hatte", "be": "ist", "have": "hat", "was": "war", "become": "wird", "became": "wurde"}
_TABLES = {"had": _HAD, "be": _TO_BE, "have": _TO_HAVE, "was": _WAS, "become": _BECOME, "became": _BECAME}
_QUESTION_WORDS = {"where": "wo", "why": "warum", "when": "wann", "how long": "wie lange"}
_LIKE_ALLE = {"alle": "alle", "viele": "viele"}


def sentence(meaning: Sentence) -> str:
    """The German sentence, with commas, capital and final mark."""
    if meaning.kind == "question":
        text, mark = clause(meaning.main, "first"), "?"
    elif meaning.kind in _QUESTION_WORDS:
        text, mark = _QUESTION_WORDS[meaning.kind] + " " + clause(meaning.main, "first"), "?"
    else:
        text, mark = _joined(meaning), "."
    text = tidy(text)
    return text[0].upper() + text[1:] + mark


def tidy(text: str) -> str:
    """Resolve commas that meet: both ends of a relative clause ask for one."""
    text = " ".join(text.replace(",", " , ").split())
    while ", ," in text:
        text = text.replace(", ,", ",")
    return text.strip(" ,").replace(" ,", ",")


def _joined(meaning: Sentence) -> str:
    main, other = meaning.main, meaning.other
    if other is None:
        return clause(main, "second")
    if meaning.kind == "coordinated":
        return f"{clause(main, 'second')}, {meaning.joint} {clause(other, 'second')}"
    if meaning.kind == "um":
        return f"{clause(main, 'second')}, um {clause(other, 'infinitive')}"
    subordinate = f"{meaning.joint} {clause(other, 'final')}"
    if meaning.joint_first:
        return f"{subordinate}, {clause(main, 'first')}"
    return f"{clause(main, 'second')}, {subordinate}"


def clause(meaning: Clause, order: str) -> str:
    """A clause with its finite verb ``first``, ``second`` or ``final``, or as zu-``infinitive``."""
    finite, bracket = _verb_parts(meaning, order)
    front, middle = _fields(meaning, order)
    if order == "infinitive":
        return " ".join(middle + bracket)
    if order == "final":
        return " ".join(front + middle + bracket + [finite])
    if order == "first":
        return " ".join([finite] + front + middle + bracket)
    return " ".join(front + [finite] + middle + bracket)


def _fields(meaning: Clause, order: str) -> tuple[list[str], list[str]]:
    """What stands before the finite verb, and the middle field, in the usual German order."""
    subject = [] if meaning.passive or order == "infinitive" else [noun_phrase(meaning.subject, "nom")]
    if meaning.passive and meaning.direct is not None:
        subject = [noun_phrase(meaning.direct, "nom")]
    time = [] if meaning.time is None else [adverbial(meaning.time)]
    place = [] if meaning.place is None else [adverbial(meaning.place)]
    rest = _objects(meaning, time) + _after_objects(meaning)
    if order == "second" and meaning.fronted == "time" and time:
        rest.remove(time[0])
        return time, subject + rest + place
    if order == "second" and meaning.fronted == "place" and place:
        return place, subject + rest
    return subject, rest + place


def _objects(meaning: Clause, time: list[str]) -> list[str]:
    """Reflexive, object pronouns (accusative before dative), time, then dative before accusative."""
    verb = meaning.verb
    if verb is None or meaning.passive:
        return list(time)
    reflexive = [pronoun(meaning.subject.person, "reflexive")] if verb.reflexive else []
    direct, indirect = meaning.direct, meaning.indirect
    if ":" in verb.frame:
        direct = None
    case = "dat" if verb.frame in ("dat", "swap") else "acc"
    early, late = [], []
    if direct is not None:
        (early if direct.is_pronoun else late).append(noun_phrase(direct, case))
    if indirect is not None:
        if indirect.is_pronoun:
            early.append(noun_phrase(indirect, "dat"))
        else:
            late.insert(0, noun_phrase(indirect, "dat"))
    return reflexive + early + list(time) + late


def _after_objects(meaning: Clause) -> list[str]:
    """Negation, gern, manner, by-phrase, prepositional object and predicate."""
    words = []
    if meaning.negated and not _negated_by_article(meaning.direct, meaning):
        words.append("nicht")
    if meaning.modal is not None and meaning.modal.infinitive == "gern":
        words.append("gern")
    if meaning.manner is not None:
        words.append(adverbial(meaning.manner))
    if meaning.passive and meaning.subject.person:
        words.append("von " + noun_phrase(meaning.subject, "dat"))
    if meaning.verb is not None and ":" in meaning.verb.frame and meaning.direct is not None:
        preposition, case = meaning.verb.frame.split(":")
        words.append(preposition + " " + noun_phrase(meaning.direct, case))
    if meaning.adjective is not None:
        words.append(_predicate(meaning))
    return words


def _negated_by_article(direct: NounPhrase | None, meaning: Clause) -> bool:
    return direct is not None and direct.determiner == "kein" and not meaning.passive


def _predicate(meaning: Clause) -> str:
    if meaning.than is None:
        return meaning.adjective.german
    return f"{meaning.adjective.comparative} als {noun_phrase(meaning.than, 'nom')}"


def adverbial(chosen: TimeOrPlace) -> str:
    """The German phrase with its braces filled in."""
    companion = chosen.companion
    if companion is None:
        return chosen.entry.german.format(**chosen.german)
    return chosen.entry.german.format(
        owner_acc=noun_phrase(companion, "acc"), owner_dat=noun_phrase(companion, "dat"), **chosen.german
    )


def _verb_parts(meaning: Clause, order: str) -> tuple[str, list[str]]:
    """The finite verb and the right bracket (particle, participle, infinitive)."""
    subject = meaning.direct if meaning.passive else meaning.subject
    person, past = subject.person, meaning.tense in ("past", "perfect")
    if meaning.verb is None:
        return _copula(person, meaning.tense)
    verb = meaning.verb
    if order == "infinitive":
        return "", [verb.prefix + "zu" + verb.infinitive if verb.prefix else "zu " + verb.infinitive]
    if meaning.passive:
        return irregular("became" if past else "become", person), [verb.participle]
    modal = meaning.modal
    if modal is not None and modal.infinitive != "gern":
        return _modal(modal, person, past), [verb.prefix + verb.infinitive]
    if meaning.tense == "pluperfect":
        return irregular("had" if verb.auxiliary == "haben" else "was", person), [verb.participle]
    if past:
        return irregular("have" if verb.auxiliary == "haben" else "be", person), [verb.participle]
    if meaning.tense == "will":
        return irregular("become", person), [verb.prefix + verb.infinitive]
    finite = present(verb, person)
    if order == "final":
        return verb.prefix + finite, []
    return finite, [verb.prefix] if verb.prefix else []


def _copula(person: str, tense: str) -> tuple[str, list[str]]:
    if tense in ("future", "will"):
        return irregular("become", person), ["sein"]
    return irregular("was" if tense == "past" else "be", person), []


def irregular(name: str, person: str) -> str:
    """A form of sein (be, was), haben (have) or werden (become, became)."""
    return _TABLES[name].get(person, _THIRD[name])


def _modal(modal: Modal, person: str, past: bool) -> str:
    if past:
        return modal.past + {"2s": "st", "1p": "n", "3p": "n", "Sie": "n", "2p": "t"}.get(person, "")
    if person in ("1p", "3p", "Sie"):
        return modal.infinitive
    if person == "2p":
        return _second_plural(modal.infinitive)
    return modal.second if person == "2s" else modal.singular


def _second_plural(infinitive: str) -> str:
    stem = infinitive[:-2]
    return stem + ("et" if stem[-1] in "td" else "t")


def present(verb: Verb, person: str) -> str:
    """The finite present form, without a separable prefix."""
    if person == "1s":
        return verb.infinitive[:-1]
    if person in ("1p", "3p", "Sie"):
        return verb.infinitive
    if person == "2p":
        return _second_plural(verb.infinitive)
    if person == "2s":
        base = verb.third[:-1]
        return base + ("t" if base[-1] in "sßzx" else "st")
    return verb.third


def pronoun(person: str, case: str) -> str:
    """A personal pronoun in a case; also the reflexive and the stem of the possessive."""
    return _PRONOUNS[person].split()[_CASES.index(case)]


def _ending(table: dict[str, str], case: str, gender: str) -> str:
    ending = table[case].split()[_GENDERS.index(gender)]
    return "" if ending == "-" else ending


def noun_phrase(phrase: NounPhrase, case: str) -> str:
    """A noun phrase in nom, acc or dat, with its relative clause between commas."""
    if phrase.is_pronoun:
        return pronoun(phrase.person, case)
    if phrase.name:
        return phrase.name
    determiner, table = _determiner(phrase, case)
    ending = _ending(table, case, phrase.gender)
    adjectives = [_stem(adjective.german) + ending for adjective in phrase.adjectives]
    words = [determiner] + adjectives + [_noun_form(phrase, case)]
    text = " ".join(word for word in words if word)
    return text if phrase.relative is None else f"{text}, {_relative(phrase, phrase.relative)},"


def _stem(adjective: str) -> str:
    """What endings are added to: *teuer* loses an e inside, *leise* its last one."""
    return "teur" if adjective == "teuer" else adjective.removesuffix("e")


def _noun_form(phrase: NounPhrase, case: str) -> str:
    noun = phrase.noun
    if phrase.plural:
        return noun.plural + ("n" if case == "dat" and noun.plural[-1] not in "ns" else "")
    return noun.plural if noun.weak and case != "nom" else noun.german


def _determiner(phrase: NounPhrase, case: str) -> tuple[str, dict[str, str]]:
    """The article word and the table of the adjective endings after it."""
    kind, gender = phrase.determiner, phrase.gender
    if kind == "def":
        return _ending(_DEFINITE, case, gender), _AFTER_DEFINITE
    if kind in ("dies", "jed"):
        return kind + _ending(_LIKE_DIES, case, gender), _AFTER_DEFINITE
    if kind in _LIKE_ALLE:
        word = _LIKE_ALLE[kind] + ("n" if case == "dat" else "")
        return word, _AFTER_DEFINITE if kind == "alle" else _BARE
    if kind == "number":
        return german_number(phrase.number), _BARE
    if kind == "poss" and phrase.owner not in _PRONOUNS:
        return phrase.owner + ("'" if phrase.owner[-1] in "sxz" else "s"), _BARE
    if kind in ("indef", "") and (gender == "p" or phrase.noun.mass):
        return "", _BARE
    stem = {"indef": "ein", "kein": "kein"}.get(kind) or pronoun(phrase.owner, "possessive")
    ending = _ending(_LIKE_EIN, case, gender)
    if stem == "euer" and ending:
        stem = "eur"
    return stem + ending, _AFTER_EIN


def _relative(phrase: NounPhrase, relative: Relative) -> str:
    """A verb-final relative clause; its pronoun has the gender of the head and the case of its role."""
    word = _ending(_DEFINITE, relative.role, phrase.gender)
    inner = relative.clause
    finite, bracket = _verb_parts(inner, "final")
    subject, rest = _fields(inner, "final")
    if relative.role == "nom":
        subject = []
    return " ".join([word] + subject + rest + bracket + [finite])
