"""The finding of one check, and the criterion for a comparison with finite differences."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from fairseq_l2t.checks.differences import Comparison

__all__ = ["BOUND", "DIRECTIONS", "HALVINGS", "LEAVE_OUT", "SHRINK", "Check", "described", "is_trusted", "largest"]

BOUND = 1e-4
"""Largest accepted relative error in float64. Differences across a ReLU that switches nearby have errors of up to 1e-5;
the smallest error of a wrong second derivative seen so far is 2e-3 (fused weight normalisation)."""

_RESOLUTION_BOUND = 1e-3
"""Largest accepted relative uncertainty of differences; beyond it the check fails."""

DIRECTIONS = 3
"""Largest number of random directions. If the first disagrees, the second and third are tried and must both agree: a
wrong derivative is wrong along nearly all directions, a kink is not."""

HALVINGS, SHRINK = 7, 4.0
"""Number and ratio of the distances of finite differences (`checks.differences.slope_at_zero`): seven, from 1e-3 to
2e-7. The smaller ones do not reach a ReLU that switches nearby."""

LEAVE_OUT = "remove new modules and options one at a time (docs/supported-models.md: A module of your own)"
"""Remedy for wrong derivatives of a model."""


@dataclass(frozen=True)
class Check:
    """One finding.

    Args:
        name: subject of the check.
        is_good: whether the check passed.
        finding: the measured figure, in words.
        remedy: remedy for a failed check.
    """

    name: str
    is_good: bool
    finding: str
    remedy: str = ""

    def __str__(self) -> str:
        line = f"{'ok  ' if self.is_good else 'FAIL'}  {self.name:<52} {self.finding}"
        return line if self.is_good or not self.remedy else f"{line}; remedy: {self.remedy}"


def is_trusted(one: Comparison) -> bool:
    """Return whether the differences are accurate enough and agree."""
    return one.resolution < _RESOLUTION_BOUND and one.error <= max(BOUND, min(3 * one.resolution, _RESOLUTION_BOUND))


def described(one: Comparison) -> str:
    """Return a comparison in words."""
    if one.ours == one.slope.value == 0:
        return "nothing flows back, by differences too"
    return f"{one.error:.0e} from differences, which are known to {one.resolution:.0e}"


def largest(errors: Iterable[float]) -> float:
    """Return the largest error; NaN, which ``max`` would ignore, counts as infinite."""
    return max(math.inf if math.isnan(error) else error for error in errors)
