"""Sentence BLEU as a reward: sacrebleu's numbers, always within [0, 1]."""

import pytest
import sacrebleu

from fairseq_l2t.objectives import SentenceBleu

REFERENCE = "Two men are standing in front of a red house ."
TEXTS = [
    "Two men are standing in front of a red house .",
    "Two men stand in front of a house.",
    "A man is standing in front of a red house , and a dog .",
    "house",
    "the the the the the the",
    "Zwei Männer stehen vor einem Haus .",
]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("tokenize", ["13a", "none"])
def test_equals_sacrebleu(text, tokenize):
    # sacrebleu.sentence_bleu uses the effective order and exponential smoothing by default
    expected = sacrebleu.sentence_bleu(text, [REFERENCE], tokenize=tokenize).score / 100
    assert SentenceBleu(tokenize)(text, REFERENCE) == pytest.approx(min(1.0, expected), abs=1e-12)


def test_the_tokenizer_matters():
    text = TEXTS[1]
    assert SentenceBleu("13a")(text, REFERENCE) != SentenceBleu("none")(text, REFERENCE)


EXTREMES = ["", " ", "\n", ".", "a", "a a", "a " * 500, REFERENCE]


@pytest.mark.parametrize("hypothesis", EXTREMES)
@pytest.mark.parametrize("reference", EXTREMES)
def test_within_the_unit_interval(hypothesis, reference):
    found = SentenceBleu()(hypothesis, reference)
    assert 0.0 <= found <= 1.0
    if not hypothesis.strip() or not reference.strip():
        assert found == 0.0
    elif hypothesis == reference:
        assert found == pytest.approx(1.0)


def test_each_reference_is_counted_once(monkeypatch):
    made = []
    original = SentenceBleu._metric
    monkeypatch.setattr(SentenceBleu, "_metric", lambda self, text: made.append(text) or original(self, text))
    reward = SentenceBleu()
    first, second = reward("a b", "a b c"), reward("a c", "a b c")
    assert made == ["a b c"]
    assert first == reward("a b", "a b c") != second
    reward("a b", "a c")
    assert made == ["a b c", "a c"]


def test_the_cache_is_bounded(monkeypatch):
    monkeypatch.setattr("fairseq_l2t.objectives.sentence_bleu.MAXIMUM_CACHED_REFERENCES", 3)
    reward = SentenceBleu()
    found = [reward("word 1 of it", f"word {number} of it") for number in range(9)]
    assert reward._metric_for.cache_info().currsize == 3
    # evicted references are counted again, with the same result; the control is another reference
    assert reward("word 1 of it", "word 1 of it") == found[1] != found[2]


def test_signature():
    signature = SentenceBleu("13a").signature()
    assert "tok:13a" in signature and "eff:yes" in signature and "smooth:exp" in signature
