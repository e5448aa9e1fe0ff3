"""The finding of one check, and when a comparison with finite differences is trusted."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from fairseq_l2t.checks.differences import Comparison

__all__ = ["BOUND", "DIRECTIONS", "HALVINGS", "SHRINK", "Check", "described", "is_trusted", "largest"]

BOUND = 1e-4
"""Largest relative error that is trusted in float64. Differences across a ReLU that switches nearby are off by 1e-5 now
and then; the smallest error of a wrong second derivative seen so far is 2e-3 (fused weight normalisation)."""

_RESOLUTION_BOUND = 1e-3
"""Largest relative uncertainty of differences that still tell something; beyond it the check fails."""

DIRECTIONS = 3
"""Random directions at most. The second and third are tried where the first disagrees, and must both agree: a wrong
derivative is wrong along nearly all of them, a kink is not."""

HALVINGS, SHRINK = 7, 4.0
"""Distances of finite differences (`checks.differences.slope_at_zero`): seven, from 1e-3 down to 2e-7, because the
smaller ones do not reach a ReLU that switches nearby."""


@dataclass(frozen=True)
class Check:
    """One finding.

    Args:
        name: what was checked.
        is_good: whether it can be trusted.
        finding: the figure behind the verdict, in words.
        remedy: what to do if it cannot be trusted.
    """

    name: str
    is_good: bool
    finding: str
    remedy: str = ""

    def __str__(self) -> str:
        line = f"{'ok  ' if self.is_good else 'FAIL'}  {self.name:<52} {self.finding}"
        return line if self.is_good or not self.remedy else f"{line}; remedy: {self.remedy}"


def is_trusted(one: Comparison) -> bool:
    """Return whether the differences are accurate enough to tell, and agree."""
    return one.resolution < _RESOLUTION_BOUND and one.error <= max(BOUND, min(3 * one.resolution, _RESOLUTION_BOUND))


def described(one: Comparison) -> str:
    """Return a comparison in words."""
    if one.ours == one.slope.value == 0:
        return "nothing flows back, by differences too"
    return f"{one.error:.0e} from differences, which are known to {one.resolution:.0e}"


def largest(errors: Iterable[float]) -> float:
    """Return the largest error; NaN, which ``max`` would pass over, counts as infinite."""
    return max(math.inf if math.isnan(error) else error for error in errors)
