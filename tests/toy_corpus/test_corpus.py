"""The embedded corpus: determinism, disjoint splits, noise, and grammar against literal expectations."""

from random import Random

import pytest

from fairseq_l2t.pairs.parallel_text import BadInput, misalign, read_lines
from toy_corpus import german
from toy_corpus.corpus import CorpusSettings, draw_pairs, main, write_corpus
from toy_corpus.english import EnglishWriter
from toy_corpus.grammar import Grammar
from toy_corpus.lexicon import MODALS, load_lexicon
from toy_corpus.meaning import Clause, NounPhrase, Relative, Sentence, TimeOrPlace
from toy_corpus.number_words import english_number, english_year, german_number, german_year

SMALL = CorpusSettings(train=200, dev=30, test=20, seed=3, noise=0.3)


def _bytes(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_same_seed_same_bytes_other_seed_other_text(tmp_path):
    for name, seed in (("first", 3), ("again", 3), ("other", 4)):
        write_corpus(tmp_path / name, CorpusSettings(200, 30, 20, seed, 0.3))
    assert _bytes(tmp_path / "first") == _bytes(tmp_path / "again")
    other = _bytes(tmp_path / "other")
    assert all(data != other[name] for name, data in _bytes(tmp_path / "first").items())


def test_no_sentence_stands_twice_in_any_split(tmp_path):
    """At the default size: on neither side is a line repeated, within a split or across splits."""
    write_corpus(tmp_path, CorpusSettings())
    for language in ("de", "en"):
        splits = {split: read_lines(tmp_path / f"{split}.{language}") for split in ("train", "valid", "test")}
        assert {split: len(lines) for split, lines in splits.items()} == {"train": 8000, "valid": 500, "test": 500}
        together = [line for lines in splits.values() for line in lines]
        assert len(set(together)) == 9000


def test_noise_changes_listed_training_targets_and_nothing_else(tmp_path):
    write_corpus(tmp_path / "clean", CorpusSettings(200, 30, 20, 3, 0.0))
    write_corpus(tmp_path / "noisy", SMALL)
    clean, noisy = _bytes(tmp_path / "clean"), _bytes(tmp_path / "noisy")
    assert {name for name in clean if clean[name] != noisy[name]} == {"train.en", "train.noise.txt"}
    before, after = read_lines(tmp_path / "clean" / "train.en"), read_lines(tmp_path / "noisy" / "train.en")
    changed = [number for number, pair in enumerate(zip(before, after, strict=True), 1) if pair[0] != pair[1]]
    assert changed == [int(line) for line in read_lines(tmp_path / "noisy" / "train.noise.txt")]
    assert len(changed) == 60
    assert sorted(before) == sorted(after)


@pytest.mark.parametrize(("share", "changed"), [(0.0, 0), (0.25, 5), (1.0, 20)])
def test_misalign_leaves_no_fixed_point(share, changed):
    targets = [f"line {number // 2}" for number in range(20)]  # every text stands twice
    mixed, indices = misalign(targets, share, Random(1))
    assert len(indices) == changed
    assert all((mixed[index] != targets[index]) == (index in indices) for index in range(20))


@pytest.mark.parametrize(("targets", "share"), [(["a", "a", "a"], 1.0), (["a", "b", "c"], 0.3), (["a"], -0.1)])
def test_misalign_refuses_what_it_cannot_do(targets, share):
    with pytest.raises(BadInput, match="--noise: "):
        misalign(targets, share, Random(1))


@pytest.mark.parametrize(("option", "value"), [("--train", "0"), ("--noise", "1.5"), ("--dev", "-1")])
def test_bad_options_are_named(tmp_path, capsys, option, value):
    with pytest.raises(SystemExit) as stop:
        main(["--output-dir", str(tmp_path / "out"), option, value])
    assert stop.value.code == 2
    assert f"{option}: {value}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("value", "de", "en"),
    [
        (1, "eins", "one"),
        (16, "sechzehn", "sixteen"),
        (23, "dreiundzwanzig", "twenty-three"),
        (30, "dreißig", "thirty"),
        (71, "einundsiebzig", "seventy-one"),
        (101, "einhunderteins", "one hundred and one"),
        (946, "neunhundertsechsundvierzig", "nine hundred and forty-six"),
        (2012, "zweitausendzwölf", "two thousand and twelve"),
    ],
)
def test_numbers(value, de, en):
    assert (german_number(value), english_number(value)) == (de, en)


@pytest.mark.parametrize(
    ("year", "de", "en"),
    [
        (1987, "neunzehnhundertsiebenundachtzig", "nineteen eighty-seven"),
        (1905, "neunzehnhundertfünf", "nineteen oh five"),
        (2001, "zweitausendeins", "two thousand and one"),
    ],
)
def test_years(year, de, en):
    assert (german_year(year), english_year(year)) == (de, en)


LEXICON = load_lexicon()


def _noun(german_word, english_word, **more):
    noun = next(noun for noun in LEXICON.nouns if (noun.german, noun.english[0]) == (german_word, english_word))
    phrase = NounPhrase(noun=noun, determiner="def", human="person" in noun.classes, **more)
    phrase.person = "3p" if phrase.plural else "3" + noun.gender
    return phrase


def _verb(infinitive, english_base):
    return next(
        verb
        for verb in LEXICON.verbs
        if (verb.prefix + verb.infinitive, verb.english[0][0]) == (infinitive, english_base)
    )


def _adjective(word, english_word):
    return next(entry for entry in LEXICON.adjectives if (entry.german, entry.english[0]) == (word, english_word))


def _time(kind, german_text):
    return TimeOrPlace(next(entry for entry in LEXICON.adverbials[kind] if entry.german == german_text))


class _Usual(Random):
    """Always takes the usual synonym and word order."""

    def random(self):
        return 0.0


def _both(meaning):
    return german.sentence(meaning), EnglishWriter(_Usual()).sentence(meaning)


HE, THEY = NounPhrase(person="3m", human=True), NounPhrase(person="3p", human=True)
OPEN = Clause(HE, _verb("aufmachen", "open"), direct=_noun("Fenster", "window"))


def _open(**more):
    return Clause(**{**vars(OPEN), **more})


@pytest.mark.parametrize(
    ("meaning", "de", "en"),
    [
        (Sentence("statement", OPEN), "Er macht das Fenster auf.", "He opens the window."),
        (
            Sentence("statement", _open(time=_time("past", "gestern"), tense="past", fronted="time")),
            "Gestern hat er das Fenster aufgemacht.",
            "He opened the window yesterday.",
        ),
        (Sentence("question", _open(tense="past")), "Hat er das Fenster aufgemacht?", "Did he open the window?"),
        (Sentence("statement", _open(negated=True)), "Er macht das Fenster nicht auf.", "He does not open the window."),
        (
            Sentence("statement", _open(modal=MODALS[1], negated=True)),
            "Er muss das Fenster nicht aufmachen.",
            "He does not have to open the window.",
        ),
        (
            Sentence("statement", _open(modal=MODALS[3], negated=True)),
            "Er darf das Fenster nicht aufmachen.",
            "He must not open the window.",
        ),
        (
            Sentence("statement", _open(time=_time("future", "morgen"), tense="future")),
            "Er macht morgen das Fenster auf.",
            "He will open the window tomorrow.",
        ),
        (
            Sentence("statement", _open(time=_time("progressive", "gerade"), tense="progressive")),
            "Er macht gerade das Fenster auf.",
            "He is opening the window right now.",
        ),
        (
            Sentence("statement", _open(time=_time("perfect", "gerade"), tense="perfect")),
            "Er hat gerade das Fenster aufgemacht.",
            "He has just opened the window.",
        ),
        (
            Sentence("subordinate", Clause(THEY, _verb("lachen", "laugh")), OPEN, "weil"),
            "Sie lachen, weil er das Fenster aufmacht.",
            "They laugh because he opens the window.",
        ),
        (
            Sentence("um", Clause(THEY, _verb("aufstehen", "get_up")), OPEN, "um"),
            "Sie stehen auf, um das Fenster aufzumachen.",
            "They get up to open the window.",
        ),
        (
            Sentence("statement", _open(passive=True, tense="past", subject=_noun("Nachbar", "neighbour"))),
            "Das Fenster wurde von dem Nachbarn aufgemacht.",
            "The window was opened by the neighbour.",
        ),
    ],
)
def test_word_order_tense_and_negation(meaning, de, en):
    assert _both(meaning) == (de, en)


@pytest.mark.parametrize(
    ("phrase", "case", "de", "en"),
    [
        (_noun("Hund", "dog", adjectives=[_adjective("alt", "old")]), "nom", "der alte Hund", "the old dog"),
        (_noun("Hund", "dog", adjectives=[_adjective("alt", "old")]), "acc", "den alten Hund", "the old dog"),
        (_noun("Hund", "dog", plural=True), "dat", "den Hunden", "the dogs"),
        (_noun("Leiter", "ladder"), "nom", "die Leiter", "the ladder"),
        (_noun("Leiter", "manager"), "nom", "der Leiter", "the manager"),
        (_noun("Student", "student"), "acc", "den Studenten", "the student"),
        (
            _noun("Auto", "car", adjectives=[_adjective("teuer", "expensive")]),
            "dat",
            "dem teuren Auto",
            "the expensive car",
        ),
    ],
)
def test_agreement(phrase, case, de, en):
    assert german.noun_phrase(phrase, case) == de
    assert EnglishWriter(_Usual()).noun_phrase(phrase, "object") == en


def test_indefinite_article_follows_the_next_word():
    phrase = _noun("Apfel", "apple")
    phrase.determiner = "indef"
    assert german.noun_phrase(phrase, "acc") == "einen Apfel"
    writer = EnglishWriter(_Usual())
    assert writer.noun_phrase(phrase, "object") == "an apple"
    phrase.adjectives = [_adjective("rot", "red")]
    assert german.noun_phrase(phrase, "acc") == "einen roten Apfel"
    assert writer.noun_phrase(phrase, "object") == "a red apple"


def test_relative_clause_is_verb_final_between_commas():
    man = _noun("Mann", "man")
    man.relative = Relative(_open(subject=NounPhrase(person="3m", human=True), tense="past"), "nom")
    meaning = Sentence("statement", Clause(man, _verb("schlafen", "sleep")))
    assert _both(meaning) == (
        "Der Mann, der das Fenster aufgemacht hat, schläft.",
        "The man who opened the window sleeps.",
    )


def test_pronoun_of_a_thing_keeps_its_gender_in_german_only():
    table = NounPhrase(person="3m", human=False)
    meaning = Sentence("statement", Clause(table, adjective=_adjective("neu", "new")))
    assert _both(meaning) == ("Er ist neu.", "It is new.")


def test_the_text_is_well_formed():
    """Two thousand sentences: one capital, one final mark, no brace left, no space before a mark."""
    for pair in draw_pairs(2000, seed=5):
        for text in pair:
            assert text[0].isupper() and text[-1] in ".?" and text[:-1].count(".") == 0
            assert not set("{}_+|/") & set(text)
            assert "  " not in text and " ," not in text and " ." not in text and ",." not in text


def test_every_verb_and_noun_can_be_drawn():
    """No line of the word lists is dead: each German participle or noun turns up in a large enough draw."""
    rng = Random(1)
    grammar = Grammar(LEXICON, rng)
    text = " ".join(german.sentence(grammar.sentence()) for _ in range(6000))
    assert [noun.german for noun in LEXICON.nouns if noun.german not in text and noun.plural not in text] == []
    assert [verb.participle for verb in LEXICON.verbs if verb.participle not in text] == []
