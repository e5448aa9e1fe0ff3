"""Sentence BLEU as a reward in [0, 1], by sacrebleu (Post 2018)."""

from __future__ import annotations

import functools

from sacrebleu.metrics.bleu import BLEU

__all__ = ["SentenceBleu"]

MAXIMUM_CACHED_REFERENCES = 1024
"""References with cached n-grams, about 20 kB each. The limit bounds the memory of a long run."""


class SentenceBleu:
    """Sentence BLEU / 100 with effective order and exponential smoothing; the n-grams of a reference are cached.

    Args:
        tokenize: sacrebleu's tokenizer, ``13a`` for detokenised text, ``none`` for ``--eval-tokenized-bleu``.
    """

    def __init__(self, tokenize: str = "13a") -> None:
        self._tokenize = tokenize
        self._metric_for = functools.lru_cache(maxsize=MAXIMUM_CACHED_REFERENCES)(self._metric)

    def __call__(self, hypothesis: str, reference: str) -> float:
        """Return the reward of one hypothesis; 0 for an empty hypothesis or reference."""
        if not hypothesis.strip() or not reference.strip():
            return 0.0
        # A metric counts the n-grams of its references once; a corpus of one sentence has the score of that sentence.
        score: float = self._metric_for(reference).corpus_score([hypothesis], None).score
        return min(1.0, max(0.0, score / 100))

    def signature(self) -> str:
        """Return sacrebleu's signature, for the log."""
        return str(self._metric("a").get_signature())

    def _metric(self, reference: str) -> BLEU:
        return BLEU(effective_order=True, smooth_method="exp", tokenize=self._tokenize, references=[[reference]])
