"""Corpus BLEU from the n-gram counts that fairseq's translation task logs in validation (``--eval-bleu``)."""

from __future__ import annotations

from collections.abc import Mapping

import sacrebleu

__all__ = ["corpus_bleu_of_counts"]

_HIGHEST_ORDER = 4
"""Length of the longest n-grams that are counted."""


def corpus_bleu_of_counts(sums: Mapping[str, float]) -> float | None:
    """Return BLEU in [0, 100] from summed logging outputs; None where they hold no n-gram counts."""
    if "_bleu_sys_len" not in sums:
        return None
    score: float = sacrebleu.BLEU.compute_bleu(
        correct=[int(sums[f"_bleu_counts_{order}"]) for order in range(_HIGHEST_ORDER)],
        total=[int(sums[f"_bleu_totals_{order}"]) for order in range(_HIGHEST_ORDER)],
        sys_len=int(sums["_bleu_sys_len"]),
        ref_len=int(sums["_bleu_ref_len"]),
        smooth_method="exp",
    ).score
    return score
