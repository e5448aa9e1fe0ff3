"""Sentence BLEU as a reward in [0, 1], by sacrebleu (Post 2018)."""

from __future__ import annotations

import functools

from sacrebleu.metrics import BLEU

__all__ = ["SentenceBleu"]

_REFERENCES_KEPT = 1024
"""References whose n-grams are kept, about 20 kB each: a night's run must not fill the memory."""


class SentenceBleu:
    """Sentence BLEU / 100 with effective order and exponential smoothing; n-grams of a reference are counted once.

    Args:
        tokenize: sacrebleu's tokenizer, ``13a`` for detokenised text, ``none`` for ``--eval-tokenized-bleu``.
    """

    def __init__(self, tokenize: str = "13a") -> None:
        self._tokenize = tokenize
        self._metric_for = functools.lru_cache(maxsize=_REFERENCES_KEPT)(self._metric)

    def __call__(self, hypothesis: str, reference: str) -> float:
        """Return the reward of one hypothesis; 0 for an empty hypothesis or reference."""
        if not hypothesis.strip() or not reference.strip():
            return 0.0
        # The references of a metric are counted when it is made; a corpus of one sentence is that sentence's score.
        return min(1.0, max(0.0, self._metric_for(reference).corpus_score([hypothesis], None).score / 100))

    def signature(self) -> str:
        """Return sacrebleu's signature, for the log."""
        return str(self._metric("a").get_signature())

    def _metric(self, reference: str) -> BLEU:
        return BLEU(effective_order=True, smooth_method="exp", tokenize=self._tokenize, references=[[reference]])
