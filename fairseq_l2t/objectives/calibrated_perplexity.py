"""Inverse perplexity of the references at the student's best temperature.

``max_b exp(mean_r log q_b(y_r))`` with ``q_b`` the renormalised power ``p(. | x, y_<r)^b``: temperature scaling (Guo et
al. 2017, "On Calibration of Modern Neural Networks") with ``b = 1 / temperature``. Greedy search finds the same output
at any temperature, and bounded losses make students over- or under-confident. This measure is independent of the
student's confidence; `inverse_perplexity` rewards correct confidence. It is ours, not the paper's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from fairseq_l2t.objectives.dev_student import Objective, ReferenceStudent
from fairseq_l2t.objectives.inverse_perplexity import inverse_perplexity

__all__ = ["best_inverse_temperature", "calibrated_perplexity"]

INVERSE_TEMPERATURE_RANGE = (2.0**-6, 2.0**6)
"""Range of b. A student that is always right, or always at chance level, has no best temperature."""

MAXIMUM_NEWTON_STEPS = 60

LAST_NEWTON_STEP = 1e-5
"""Relative size of a Newton step after which the search stops: its error is about the square of that, and float32
resolves b to 1e-6."""

LEFT_SLOPE_SHARE = 0.25
"""Share of the slope that may remain after a Newton step; otherwise the interval is halved."""


def calibrated_perplexity(student: ReferenceStudent, pairs: Sequence[int]) -> Objective:
    """Return the geometric mean probability of a reference token of ``pairs`` at the best temperature.

    The gradient is that at a fixed temperature, because the derivative through the best one is 0 (envelope theorem).

    Raises:
        ValueError: no pairs.
    """
    return inverse_perplexity(student, pairs, best_inverse_temperature(student, pairs))


def best_inverse_temperature(student: ReferenceStudent, pairs: Sequence[int]) -> float:
    """Return the b in [1/64, 64] at which the references of ``pairs`` are most probable (safeguarded Newton method).

    Their log-probability is concave in b: slope ``sum_r l_y - mean of l under q_b``, curvature ``-sum_r variance of l
    under q_b``, l the log-probabilities of all entries.
    """
    low, high = INVERSE_TEMPERATURE_RANGE
    b, before = 1.0, math.inf
    for _ in range(MAXIMUM_NEWTON_STEPS):
        slope, variance = _derivatives(student, pairs, b)
        if not (math.isfinite(slope) and variance > 0):
            return b  # all probabilities are equal, so that b has no effect, or NaN, which the measure reports
        found = b + slope / variance
        if abs(found - b) <= LAST_NEWTON_STEP * b:
            return min(max(found, INVERSE_TEMPERATURE_RANGE[0]), INVERSE_TEMPERATURE_RANGE[1])
        low, high = (b, high) if slope > 0 else (low, b)
        # Newton steps make little progress where the student is almost certain.
        if not low < found < high or abs(slope) > LEFT_SLOPE_SHARE * before:
            found = math.sqrt(low * high)
        b, before = found, abs(slope)
    return b


@torch.no_grad()
def _derivatives(student: ReferenceStudent, pairs: Sequence[int], b: float) -> tuple[float, float]:
    slope = variance = 0.0
    for chunk in student.dev_chunks(pairs):
        log_probs, targets, keep = student.reference_distributions(chunk)
        of_targets, means, variances = _moments(log_probs, targets, b)
        slope += float((of_targets - means).masked_fill(~keep, 0.0).double().sum())
        variance += float(variances.masked_fill(~keep, 0.0).double().sum())
    return slope, variance


def _moments(log_probs: Tensor, targets: Tensor, b: float) -> tuple[Tensor, Tensor, Tensor]:
    # An entry of probability 0 does not contribute to q_b, and 0 times infinity would be NaN.
    weights = torch.softmax(b * log_probs, -1)
    finite = log_probs.masked_fill(log_probs == -math.inf, 0.0)
    means = (weights * finite).sum(-1, keepdim=True)
    variances = (weights * (finite - means).square()).sum(-1)
    return finite.gather(-1, targets.unsqueeze(-1)).squeeze(-1), means.squeeze(-1), variances
