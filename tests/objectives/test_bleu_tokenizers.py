"""Tokenizers of BLEU: by language, and whether one fits a text."""

import pytest
from sacrebleu.metrics.bleu import BLEU

from fairseq_l2t.objectives import SentenceBleu
from fairseq_l2t.objectives.bleu_tokenizers import BLEU_TOKENIZERS, tokenizer_of, why_unfit, why_unusable

CHINESE = "今天天气很好，我们去公园散步。"


def test_names_are_those_of_sacrebleu():
    assert set(BLEU_TOKENIZERS) < set(BLEU.TOKENIZERS)
    assert {language: tokenizer_of(language) for language in BLEU._TOKENIZER_MAP} == BLEU._TOKENIZER_MAP


@pytest.mark.parametrize(
    ("language", "expected"),
    [
        ("zh_CN", "zh"),
        ("zho_Hans", "zh"),
        ("zh-Hant", "zh"),
        ("ja_XX", "ja-mecab"),
        ("JPN", "ja-mecab"),
        ("kor_Hang", "ko-mecab"),
        ("en", "13a"),
        ("zu", "13a"),
        ("tgt", "13a"),
    ],
)
def test_tokenizer_of_a_language(language, expected):
    assert tokenizer_of(language) == expected


def test_text_without_spaces_needs_another_tokenizer():
    spaced = " ".join(CHINESE)
    assert "13a splits at spaces" in why_unfit("13a", [CHINESE])
    assert why_unfit("13a", ["ผมไปสวนสาธารณะกับเพื่อนๆ"]) and why_unfit("intl", ["公園を散歩しましたとても楽しかった"])
    fit = [
        ("zh", CHINESE),
        ("char", CHINESE),
        ("none", spaced),
        ("13a", "공원에서 산책했습니다"),
        ("13a", "a 花园"),
        ("13a", ""),
    ]
    assert not any(why_unfit(name, [text]) for name, text in fit)


def test_a_reward_of_chinese():
    """The case: by 13a a sentence with one other character has no word in common with its reference."""
    other = CHINESE.replace("公园", "花园")
    assert SentenceBleu()(other, CHINESE) == 0.0 < 0.7 < SentenceBleu("zh")(other, CHINESE) < 1.0


@pytest.mark.parametrize(("name", "extra"), [("ja-mecab", "ja"), ("ko-mecab", "ko")])
def test_a_tokenizer_that_is_not_installed(monkeypatch, name, extra):
    assert not any(why_unusable(other) for other in ("13a", "zh", "char", "intl", "none"))
    monkeypatch.setattr(f"sacrebleu.tokenizers.tokenizer_{name.replace('-', '_')}.MeCab", None)
    assert why_unusable(name) == f"needs MeCab and its dictionary: pip install 'sacrebleu[{extra}]'; or use char"
