"""Inverse perplexity of the references: ``exp(mean_r log p(y_r | x, y_<r))``, the geometric mean of their probability.

Unlike the expected token accuracy it is a proper score (Gneiting & Raftery 2007, "Strictly Proper Scoring Rules,
Prediction, and Estimation"): a student that only becomes more certain, not better, does not gain. Ours, not the
paper's; for short windows, in which certainty pays at once and costs later.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from fairseq_l2t.objectives.dev_student import DevStudent, Objective, add_gradient

__all__ = ["inverse_perplexity"]


def inverse_perplexity(student: DevStudent, pairs: Sequence[int]) -> Objective:
    """Return the geometric mean probability of a reference token of ``pairs``, and its gradient.

    Raises:
        ValueError: no pairs.
    """
    if not pairs:
        raise ValueError("pairs: none; expected at least one dev pair")
    total, tokens, gradient = 0.0, 0, None
    for chunk in student.dev_chunks(pairs, 1):
        with torch.enable_grad():
            log_probs, keep = student.reference_log_probs(chunk)
            summed = log_probs.masked_fill(~keep, 0.0).sum()
            gradient = add_gradient(gradient, student, summed)
        total, tokens = total + float(summed.detach()), tokens + int(keep.sum())
    value = math.exp(total / tokens)
    return Objective(value, gradient * (value / tokens))
