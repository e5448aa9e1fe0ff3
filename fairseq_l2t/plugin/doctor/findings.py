"""What a check of `plugin.doctor.doctor` finds, and when a comparison with finite differences is trusted."""

from __future__ import annotations

from dataclasses import dataclass

from fairseq_l2t.checks.differences import Comparison

__all__ = ["BOUND", "DIRECTIONS", "DISTANCES", "Check", "is_resolved", "is_trusted", "said"]

BOUND = 1e-4
"""Largest relative error that is trusted in float64. Differences across a ReLU that switches nearby are off by 1e-5 now
and then; the smallest error a wrong second derivative was seen to make is 2e-3 (fused weight normalisation)."""

_UNRESOLVED = 1e-3
"""Differences that know themselves no better than this tell nothing, and the check fails."""


DIRECTIONS = 3
"""Random directions at most. The second and third are tried where the first disagrees, and must both agree: what is
wrong is wrong along nearly all of them, a kink is not."""

DISTANCES = {"halvings": 7, "shrink": 4.0}
"""From 1e-3 down to 2e-7: a ReLU that switches nearby is behind the smaller ones."""


@dataclass(frozen=True)
class Check:
    """One finding: what was looked at, whether it can be trusted, the figure behind it, and what to do if not."""

    name: str
    is_good: bool
    finding: str
    remedy: str = ""

    def __str__(self) -> str:
        line = f"{'ok  ' if self.is_good else 'FAIL'}  {self.name:<52} {self.finding}"
        return line if self.is_good or not self.remedy else f"{line}; remedy: {self.remedy}"


def is_resolved(one: Comparison) -> bool:
    """Return whether differences know enough to tell."""
    return one.resolution < _UNRESOLVED


def is_trusted(one: Comparison) -> bool:
    """Return whether differences know enough, and agree."""
    return is_resolved(one) and one.error <= max(BOUND, min(3 * one.resolution, _UNRESOLVED))


def said(one: Comparison) -> str:
    """Return a comparison in words."""
    if one.ours == one.slope.value == 0:
        return "nothing flows back, by differences too"
    return f"{one.error:.0e} from differences, which are known to {one.resolution:.0e}"
