"""Slopes by finite differences with an error estimate, the reference for the reverse pass.

Source: C. J. F. Ridders, "Accurate computation of F'(x) and F'(x)F''(x)", Advances in Engineering Software 4 (1982):
extrapolated central differences at decreasing distances, with an error estimate from their agreement.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from fairseq_l2t.loss.teacher import Teacher
from fairseq_l2t.unroll.adjoint_sweep import pull_back
from fairseq_l2t.unroll.student import Student
from fairseq_l2t.unroll.trajectory import Step, Trajectory, replay, student_gradient
from fairseq_l2t.unroll.update_rules import Clipping, StepSize, UpdateRule

__all__ = [
    "Comparison",
    "Slope",
    "compare_adjoint",
    "compare_hypergradient",
    "compare_update",
    "slope_at_zero",
    "spread",
    "unit_direction",
]

FLOAT64_ROUNDING = 2.0**-53
"""Relative rounding error of one float64 operation."""


@dataclass(frozen=True)
class Slope:
    """A derivative from differences.

    Args:
        value: the derivative.
        uncertainty: estimate of its absolute error.
    """

    value: float
    uncertainty: float


@dataclass(frozen=True)
class Comparison:
    """Our derivative along one direction, and the one from finite differences."""

    ours: float
    slope: Slope

    @property
    def error(self) -> float:
        """Relative difference of the two; 0 if both are 0."""
        gap = abs(self.ours - self.slope.value)
        return gap / abs(self.slope.value) if self.slope.value else (0.0 if gap == 0 else math.inf)

    @property
    def resolution(self) -> float:
        """Estimated relative error of the differences themselves."""
        if self.slope.value:
            return self.slope.uncertainty / abs(self.slope.value)
        return math.inf if self.slope.uncertainty > 0 else 0.0


def slope_at_zero(
    function: Callable[[float], float],
    largest: float,
    *,
    tolerance: float = 1e-8,
    halvings: int = 10,
    shrink: float = 2.0,
) -> Slope:
    """Return the slope of ``function`` at 0.

    Args:
        function: function of one number, computed in float64.
        largest: first distance. Later distances are smaller: next to a kink or a jump of the function, only distances
            below it agree with each other.
        tolerance: relative error at which the search stops.
        halvings: maximum number of distances.
        shrink: ratio of a distance to the next.
    """
    best = Slope(math.nan, math.inf)
    row: list[float] = []
    distance, here, bend = largest, function(0.0), math.inf
    for _ in range(halvings):
        ahead, behind = function(distance), function(-distance)
        rounding = FLOAT64_ROUNDING * max(abs(ahead), abs(behind)) / distance
        # Half the difference of the slopes on both sides decreases with the distance, except for a kink at 0 itself.
        last_bend, bend = bend, (ahead - 2 * here + behind) / (2 * distance)
        kink = max(0.0, abs(bend) - abs(last_bend) * (1 + shrink) / (2 * shrink))
        previous, row = row, [(ahead - behind) / (2 * distance)]
        for order, coarser in enumerate(previous):
            weight = shrink ** (2 * order + 2)
            row.append((weight * row[order] - coarser) / (weight - 1))
            # Both neighbours in Ridders' tableau must agree: the coarser of equal order, the finer of lower order.
            uncertainty = max(abs(row[-1] - row[order]), abs(row[-1] - coarser)) + rounding + kink
            if uncertainty < best.uncertainty:
                best = Slope(row[-1], uncertainty)
        # Two distances have only one difference, which may be small by chance.
        if len(row) > 2 and best.uncertainty <= tolerance * abs(best.value):
            break
        distance /= shrink
    return best


def unit_direction(like: Tensor, seed: int) -> Tensor:
    """Return a random direction of length 1, in the shape, dtype and device of ``like``."""
    generator = torch.Generator().manual_seed(seed)
    direction = torch.randn(like.shape, generator=generator, dtype=torch.float64)
    unit: Tensor = direction / direction.norm()
    return unit.to(like)


def compare_hypergradient(
    trajectory: Trajectory,
    ours: dict[str, Tensor],
    measure: Callable[[], float],
    name: str,
    direction: Tensor,
    *,
    largest: float = 1e-3,
    tolerance: float = 1e-8,
    halvings: int = 10,
    shrink: float = 2.0,
) -> Comparison:
    """Compare ``ours`` along ``direction`` of the teacher's tensor ``name`` with differences of whole unrolls.

    Args:
        trajectory: trajectory of a float64 student.
        ours: the hypergradient by name.
        measure: the measure at the student's current parameters.
        name: name of a tensor of the teacher.
        direction: direction, in the shape of that tensor.
        largest, tolerance, halvings, shrink: see `slope_at_zero`.

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
        slope = slope_at_zero(moved, largest, tolerance=tolerance, halvings=halvings, shrink=shrink)
    finally:
        trajectory.student.set_omega(final_omega)
    return Comparison(float((ours[name] * direction).sum()), slope)


def compare_update(
    student: Student,
    step: Step,
    cotangents: Mapping[str, Tensor],
    *,
    seed: int,
    along: Literal["parameters", "coefficients"] = "parameters",
    largest: float = 1e-3,
    tolerance: float = 1e-8,
    halvings: int = 10,
    shrink: float = 2.0,
) -> dict[str, Comparison]:
    """Compare the second derivatives at one update with differences of the student's real gradient.

    For each cotangent v, ``(J^T v) . u`` of the reverse pass is compared with the slope of ``v . g`` along one random
    direction u.

    Args:
        student: student in float64; its parameters are set to ``step.omega``.
        step: parameters, batch and coefficients of the gradient.
        cotangents: v (n,) by name. A v that is 0 except for some parameters checks the second derivatives of *their*
            gradients. Each v is read again for every distance, one at a time, so that a mapping may compute it on
            demand.
        seed: seed of the direction.
        along: whether u is a direction of omega or of Phi.
        largest, tolerance, halvings, shrink: see `slope_at_zero`.

    Raises:
        ValueError: ``along`` is ``coefficients`` and the step uses plain cross-entropy.
    """
    phi = step.coefficients if along == "coefficients" else None
    if along == "coefficients" and phi is None:
        raise ValueError("along: coefficients; this update uses plain cross-entropy and has none")
    direction = unit_direction(step.omega if phi is None else phi, seed)

    def along_direction(omega_bar: Tensor, phi_bar: Tensor | None) -> float:
        # None: the gradient does not depend on Phi
        found = omega_bar if phi is None else phi_bar
        return 0.0 if found is None else float(torch.dot(found, direction))

    pulled = pull_back(student, step, cotangents.values())
    ours = {name: along_direction(*pair) for name, pair in zip(cotangents, pulled, strict=True)}
    # All products of one distance together: a saved gradient per distance would take more memory than an unroll.
    known: dict[float, dict[str, float]] = {}

    def product(name: str, distance: float) -> float:
        if distance not in known:
            student.set_omega(step.omega + distance * direction if phi is None else step.omega)
            coefficients = step.coefficients if phi is None else phi + distance * direction
            gradient = student_gradient(student, step.batch, coefficients, step.update)
            known[distance] = {own: float(torch.dot(v, gradient)) for own, v in cotangents.items()}
        return known[distance][name]

    found = {
        name: Comparison(
            value,
            slope_at_zero(partial(product, name), largest, tolerance=tolerance, halvings=halvings, shrink=shrink),
        )
        for name, value in ours.items()
    }
    student.set_omega(step.omega)
    return found


def compare_adjoint(rule: UpdateRule, clipping: Clipping, size: StepSize, seed: int, length: int = 32) -> float:
    """Return the relative error of the adjoint of clipping and a rule, on short random vectors, against differences.

    Args:
        rule: the rule.
        clipping: the clipping; with a norm above 0, the gradient is long enough to be clipped.
        size: learning rate and number of the update.
        seed: seed of the vectors.
        length: number of their elements.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw() -> Tensor:
        return torch.randn(length, generator=generator, dtype=torch.float64)

    omega, gradient = draw(), draw()
    if clipping.max_norm > 0:
        gradient = gradient * (3 * clipping.max_norm / gradient.norm())
    # Positive, as second moments are. One near 0 would have a slope that dominates all others.
    mean_square = clipping.apply(gradient).square().mean()
    buffers = tuple((0.5 + draw().square()) * mean_square for _ in range(rule.buffer_count))
    inputs = (omega, gradient, *buffers)
    directions = [part.abs().mean() * draw() for part in inputs]
    outputs_bar = [draw() for _ in range(1 + rule.buffer_count)]

    def moved(distance: float) -> float:
        point, gradient, *moved_buffers = (part + distance * way for part, way in zip(inputs, directions, strict=True))
        new, new_buffers = rule.apply(point, tuple(moved_buffers), clipping.apply(gradient), size)
        return sum(float(torch.dot(bar, out)) for bar, out in zip(outputs_bar, (new, *new_buffers), strict=True))

    clipped = clipping.apply(gradient)
    omega_bar, buffers_bar, clipped_bar = rule.adjoint(
        omega, buffers, clipped, size, outputs_bar[0], tuple(outputs_bar[1:])
    )
    found = (omega_bar, clipping.adjoint(gradient, clipped_bar), *buffers_bar)
    ours = sum(float(torch.dot(bar, way)) for bar, way in zip(found, directions, strict=True))
    return Comparison(ours, slope_at_zero(moved, 1e-3)).error


def spread(teacher: Teacher, seed: int, lowest: float = 0.05, highest: float = 0.45) -> Teacher:
    """Change ``teacher`` so that its coefficients differ between keys, words and states, and return it.

    The coefficients of a new teacher are nearly equal, so that the hypergradient of its queries would be smaller than
    the rounding errors of differences.

    Args:
        teacher: the teacher.
        seed: seed of the coefficients.
        lowest, highest: range of the coefficients.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        values = torch.rand(teacher.values.shape, generator=generator, dtype=torch.float64)
        teacher.values.copy_(lowest + (highest - lowest) * values)
        teacher.queries.mul_(4)
    return teacher
