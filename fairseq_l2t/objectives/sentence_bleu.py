"""Sentence BLEU as a reward in [0, 1], by sacrebleu (Post 2018)."""

from __future__ import annotations

from sacrebleu.metrics import BLEU

__all__ = ["SentenceBleu"]


class SentenceBleu:
    """Sentence BLEU / 100 with effective order and exponential smoothing; no pair of texts is scored twice.

    Args:
        tokenize: sacrebleu's tokenizer, ``13a`` for detokenised text, ``none`` for ``--eval-tokenized-bleu``.
    """

    def __init__(self, tokenize: str = "13a") -> None:
        self._metric = BLEU(effective_order=True, smooth_method="exp", tokenize=tokenize)
        self._known: dict[tuple[str, str], float] = {}

    def __call__(self, hypothesis: str, reference: str) -> float:
        """Return the reward of one hypothesis; 0 for an empty hypothesis or reference."""
        key = (hypothesis, reference)
        if key not in self._known:
            self._known[key] = self._score(hypothesis, reference)
        return self._known[key]

    def signature(self) -> str:
        """Return sacrebleu's signature, for the log."""
        self._metric.sentence_score("a", ["a"])  # the number of references is known only after a score
        return str(self._metric.get_signature())

    def _score(self, hypothesis: str, reference: str) -> float:
        if not hypothesis.strip() or not reference.strip():
            return 0.0
        return min(1.0, max(0.0, self._metric.sentence_score(hypothesis, [reference]).score / 100))
