"""Conversion of sentences to the text that BLEU compares, joined and detokenised as by fairseq's ``--eval-bleu``."""

from __future__ import annotations

import functools
import json
from argparse import Namespace
from collections.abc import Sequence
from typing import Protocol

from fairseq.data import Dictionary, encoders
from fairseq.tasks.translation import TranslationConfig

from fairseq_l2t.objectives import SentenceBleu

__all__ = ["ScoredTexts"]


class _Detokenizer(Protocol):
    def decode(self, text: str, /) -> str: ...


class ScoredTexts:
    """The texts of hypotheses and references, and the reward that compares them.

    Args:
        dictionary: the target dictionary.
        options: the task's ``--eval-bleu-*`` options. The detokeniser is built for the first text.
        tokenizer: sacrebleu's tokenizer of the reward (`objectives.bleu_tokenizers`).
    """

    def __init__(self, dictionary: Dictionary, options: TranslationConfig, tokenizer: str) -> None:
        self._dictionary, self._options, self._tokenizer = dictionary, options, tokenizer
        # Read once: a look-up in fairseq's options takes longer than putting a hypothesis into words.
        self._subword_mark: str | None = options.eval_bleu_remove_bpe

    def hypothesis(self, tokens: Sequence[int]) -> str:
        """Return a hypothesis as text; its unknown words match no word of a reference."""
        return self._text(tokens, "UNKNOWNTOKENINHYP")

    def reference(self, tokens: Sequence[int]) -> str:
        """Return a reference as text."""
        return self._text(tokens, "UNKNOWNTOKENINREF")

    @functools.cached_property
    def reward(self) -> SentenceBleu:
        """Sentence BLEU on detokenised text, by the tokenizer."""
        return SentenceBleu(self._tokenizer)

    @functools.cached_property
    def _detokenizer(self) -> _Detokenizer | None:
        arguments = json.loads(self._options.eval_bleu_detok_args)
        found: _Detokenizer | None = encoders.build_tokenizer(
            Namespace(tokenizer=self._options.eval_bleu_detok, **arguments)
        )
        return found

    def _text(self, tokens: Sequence[int], unknown: str) -> str:
        text: str = self._dictionary.string(tokens, self._subword_mark, unk_string=unknown)
        return text if self._detokenizer is None else self._detokenizer.decode(text)
