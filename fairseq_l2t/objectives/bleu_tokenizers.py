"""sacrebleu's tokenizers for BLEU: their names, the one of a language, and whether one can be used here."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from sacrebleu.metrics.bleu import BLEU

__all__ = ["BLEU_TOKENIZERS", "tokenizer_of", "why_unfit", "why_unusable"]

BLEU_TOKENIZERS = ("13a", "zh", "ja-mecab", "ko-mecab", "char", "intl", "none")
"""The tokenizers that need no download; sacrebleu has others, which are sentencepiece models on the network."""

_LANGUAGES = {
    "zh": ("zh", "zho", "chi", "cmn", "yue", "lzh"),
    "ja-mecab": ("ja", "jpn", "jp"),
    "ko-mecab": ("ko", "kor"),
}
"""Languages with a tokenizer of their own, by their codes of two and three letters."""

_REMEDIES = {"ja-mecab": "pip install 'sacrebleu[ja]'", "ko-mecab": "pip install 'sacrebleu[ko]'"}

_SPLIT_AT_SPACES = ("13a", "intl", "none")
_SCRIPTS_WITHOUT_SPACES = ("CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN")
"""First words of the Unicode names of letters that are written without spaces between words."""

_LONGEST_MEAN_WORD = 6
"""Letters a word in text of such a script that has been split into words: about 2 in Chinese, 4 in Thai."""


def tokenizer_of(language: str) -> str:
    """Return sacrebleu's tokenizer for a language code such as ``zh``, ``ja_XX`` or ``zho_Hans``; ``13a`` for most."""
    code = language.replace("_", "-").partition("-")[0].lower()
    return next((name for name, codes in _LANGUAGES.items() if code in codes), BLEU.TOKENIZER_DEFAULT)


def why_unusable(tokenizer: str) -> str:
    """Return why a tokenizer of sacrebleu cannot be used, and what helps; empty if it can be used."""
    try:
        BLEU(tokenize=tokenizer)
    # sacrebleu checks MeCab's dictionary with `assert`.
    except (RuntimeError, AssertionError) as error:
        if tokenizer in _REMEDIES:
            return f"needs MeCab and its dictionary: {_REMEDIES[tokenizer]}; or use char"
        return " ".join(str(error).split())
    except OSError as error:  # from the download, a URLError among them
        return f"needs a sentencepiece model that sacrebleu cannot download ({error})"
    return ""


def why_unfit(tokenizer: str, texts: Iterable[str]) -> str:
    """Return why BLEU with this tokenizer says little about ``texts``; empty if nothing is known against it.

    A tokenizer that splits at spaces takes a sentence of a script without spaces for a word or two, so that BLEU is 0
    or nearly 0 for anything but the reference itself.
    """
    if tokenizer not in _SPLIT_AT_SPACES:
        return ""
    words = [word for text in texts for word in text.split()]
    letters = [letter for word in words for letter in word if letter.isalpha()]
    without = sum(unicodedata.name(letter, "").startswith(_SCRIPTS_WITHOUT_SPACES) for letter in letters)
    if 2 * without <= len(letters) or len(letters) <= _LONGEST_MEAN_WORD * len(words):
        return ""
    return f"{tokenizer} splits at spaces, and most of the text is in a script without spaces between words"
