"""Inverse perplexity of the references: ``exp(mean_r log p(y_r | x, y_<r))``, the geometric mean of their probability.

Unlike the expected token accuracy it is a proper score (Gneiting & Raftery 2007, "Strictly Proper Scoring Rules,
Prediction, and Estimation"): more confidence without better predictions does not raise it. It is ours, not the paper's,
and meant for short windows, in which confidence raises other measures at once and lowers quality later.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from fairseq_l2t.objectives.dev_student import Objective, ReferenceStudent, sum_over_references

__all__ = ["inverse_perplexity"]


def inverse_perplexity(student: ReferenceStudent, pairs: Sequence[int], inverse_temperature: float = 1.0) -> Objective:
    """Return the geometric mean probability of a reference token of ``pairs``, and its gradient.

    ``inverse_temperature``: see `ReferenceStudent.reference_log_probs`.

    Raises:
        ValueError: no pairs.
    """
    total, tokens, gradient = sum_over_references(student, pairs, lambda log_probs: log_probs, inverse_temperature)
    value = math.exp(total / tokens)
    return Objective(value, gradient * (value / tokens))
