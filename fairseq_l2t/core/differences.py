"""Slopes by finite differences that know how far they can be trusted: what the reverse pass is checked against.

Source: C. J. F. Ridders, "Accurate computation of F'(x) and F'(x)F''(x)", Advances in Engineering Software 4 (1982):
central differences at shrinking distances, extrapolated, with the error estimated from how well they agree.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fairseq_l2t.core.reverse import pull_back
from fairseq_l2t.core.student import Student
from fairseq_l2t.core.teacher import Teacher
from fairseq_l2t.core.unroll import Step, Trajectory, replay, student_gradient

__all__ = [
    "Comparison",
    "Slope",
    "compare_hypergradient",
    "compare_update",
    "slope_at_zero",
    "spread",
    "unit_direction",
]

_ROUNDING = 2.0**-53
"""Relative rounding of one float64 operation."""


@dataclass(frozen=True)
class Slope:
    """A derivative found by differences, and an estimate of its absolute error."""

    value: float
    uncertainty: float


@dataclass(frozen=True)
class Comparison:
    """Our derivative along one direction beside that of finite differences."""

    ours: float
    slope: Slope

    @property
    def error(self) -> float:
        """Relative difference of the two; 0 where both are 0."""
        gap = abs(self.ours - self.slope.value)
        return gap / abs(self.slope.value) if self.slope.value else (0.0 if gap == 0 else math.inf)

    @property
    def resolution(self) -> float:
        """Relative error the differences themselves may have."""
        return self.slope.uncertainty / abs(self.slope.value) if self.slope.value else 0.0


def slope_at_zero(
    function: Callable[[float], float], largest: float, *, tolerance: float = 1e-8, halvings: int = 10
) -> Slope:
    """Return the slope of ``function`` at 0.

    Args:
        function: of one number; computed in float64.
        largest: first distance to try. Later ones are halves: where the function has a kink or a jump nearby, only
            distances below it agree with each other.
        tolerance: relative error to stop at.
        halvings: distances to try at most.
    """
    best = Slope(math.nan, math.inf)
    row: list[float] = []
    distance = largest
    for _ in range(halvings):
        ahead, behind = function(distance), function(-distance)
        rounding = _ROUNDING * max(abs(ahead), abs(behind)) / distance
        previous, row = row, [(ahead - behind) / (2 * distance)]
        for order, coarser in enumerate(previous):
            weight = 4.0 ** (order + 1)
            row.append((weight * row[order] - coarser) / (weight - 1))
            # Both neighbours in Ridders' tableau must agree: the coarser one of the same order, the finer of a lower.
            uncertainty = max(abs(row[-1] - row[order]), abs(row[-1] - coarser)) + rounding
            if uncertainty < best.uncertainty:
                best = Slope(row[-1], uncertainty)
        if best.uncertainty <= tolerance * abs(best.value):
            break
        distance /= 2
    return best


def unit_direction(like: Tensor, seed: int) -> Tensor:
    """Return a random direction of length 1, in the shape, dtype and device of ``like``."""
    generator = torch.Generator().manual_seed(seed)
    direction = torch.randn(like.shape, generator=generator, dtype=torch.float64)
    return (direction / direction.norm()).to(like)


def compare_hypergradient(
    trajectory: Trajectory,
    ours: dict[str, Tensor],
    measure: Callable[[], float],
    name: str,
    direction: Tensor,
    *,
    largest: float = 1e-3,
    tolerance: float = 1e-8,
) -> Comparison:
    """Compare ``ours`` along ``direction`` of the teacher's tensor ``name`` with differences of whole unrolls.

    Args:
        trajectory: of a float64 student.
        ours: the hypergradient by name.
        measure: the measure at the student's parameters as they are.
        name, direction: along which tensor of the teacher, and which way in it.
        largest, tolerance: see `slope_at_zero`.

    The student's parameters are at omega_T again afterwards.
    """
    teacher = copy.deepcopy(trajectory.teacher)
    parameter = dict(teacher.named_parameters())[name]
    start = parameter.detach().clone()
    final_omega = trajectory.student.omega.clone()

    def moved(distance: float) -> float:
        with torch.no_grad():
            parameter.copy_(start + distance * direction)
        replay(trajectory, teacher)
        return measure()

    try:
        slope = slope_at_zero(moved, largest, tolerance=tolerance)
    finally:
        trajectory.student.set_omega(final_omega)
    return Comparison(float((ours[name] * direction).sum()), slope)


def compare_update(
    student: Student,
    step: Step,
    cotangent: Tensor,
    direction: Tensor,
    *,
    pulled: Tensor | None = None,
    largest: float = 1e-4,
    tolerance: float = 1e-8,
) -> Comparison:
    """Compare ``(J^T v) . u`` of the reverse pass with differences of ``v . g(omega + h u)``, g the real gradient.

    Args:
        student: in float64; its parameters are set to ``step.omega``.
        step: where, and on which batch.
        cotangent: v (n,).
        direction: u (n,).
        pulled: ``J^T v`` where it is known already.
        largest, tolerance: see `slope_at_zero`.
    """
    if pulled is None:
        pulled, _ = pull_back(student, step, cotangent)

    def moved(distance: float) -> float:
        student.set_omega(step.omega + distance * direction)
        return float(torch.dot(cotangent, student_gradient(student, step.batch, step.coefficients, step.update)))

    try:
        slope = slope_at_zero(moved, largest, tolerance=tolerance)
    finally:
        student.set_omega(step.omega)
    return Comparison(float(torch.dot(pulled, direction)), slope)


def spread(teacher: Teacher, seed: int, lowest: float = 0.05, highest: float = 0.45) -> Teacher:
    """Return ``teacher`` with coefficients that differ between keys, words and states.

    A new teacher's are nearly equal, so that the hypergradient of its queries would drown in the rounding of
    differences.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        values = torch.rand(teacher.values.shape, generator=generator, dtype=torch.float64)
        teacher.values.copy_(lowest + (highest - lowest) * values)
        teacher.queries.mul_(4)
    return teacher
