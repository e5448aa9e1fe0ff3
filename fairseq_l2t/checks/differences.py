"""Slopes by finite differences that know how far they can be trusted: what the reverse pass is checked against.

Source: C. J. F. Ridders, "Accurate computation of F'(x) and F'(x)F''(x)", Advances in Engineering Software 4 (1982):
central differences at shrinking distances, extrapolated, with the error estimated from how well they agree.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
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
        function: of one number; computed in float64.
        largest: first distance to try. Later ones are smaller: where the function has a kink or a jump nearby, only
            distances below it agree with each other.
        tolerance: relative error to stop at.
        halvings: distances to try at most.
        shrink: how many times smaller each distance is than the last.
    """
    best = Slope(math.nan, math.inf)
    row: list[float] = []
    distance, here, bend = largest, function(0.0), math.inf
    for _ in range(halvings):
        ahead, behind = function(distance), function(-distance)
        rounding = _ROUNDING * max(abs(ahead), abs(behind)) / distance
        # Half the difference of the slopes on both sides shrinks with the distance, unless there is a kink at 0 itself.
        last_bend, bend = bend, (ahead - 2 * here + behind) / (2 * distance)
        kink = max(0.0, abs(bend) - abs(last_bend) * (1 + shrink) / (2 * shrink))
        previous, row = row, [(ahead - behind) / (2 * distance)]
        for order, coarser in enumerate(previous):
            weight = shrink ** (2 * order + 2)
            row.append((weight * row[order] - coarser) / (weight - 1))
            # Both neighbours in Ridders' tableau must agree: the coarser one of the same order, the finer of a lower.
            uncertainty = max(abs(row[-1] - row[order]), abs(row[-1] - coarser)) + rounding + kink
            if uncertainty < best.uncertainty:
                best = Slope(row[-1], uncertainty)
        # Two distances have one gap only, which may be small by accident.
        if len(row) > 2 and best.uncertainty <= tolerance * abs(best.value):
            break
        distance /= shrink
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
    halvings: int = 10,
    shrink: float = 2.0,
) -> Comparison:
    """Compare ``ours`` along ``direction`` of the teacher's tensor ``name`` with differences of whole unrolls.

    Args:
        trajectory: of a float64 student.
        ours: the hypergradient by name.
        measure: the measure at the student's parameters as they are.
        name, direction: along which tensor of the teacher, and which way in it.
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

    For each cotangent v: ``(J^T v) . u`` of the reverse pass with the slope of ``v . g`` along u, one random direction.

    Args:
        student: in float64; its parameters are set to ``step.omega``.
        step: where, and on which batch.
        cotangents: v (n,) by name; v confined to some parameters tells whether *their* gradients are differentiated
            rightly. Asked for one at a time, again for each distance: a mapping may make them as it goes.
        seed: of the direction.
        along: whether u is a direction of omega or, where the step has coefficients, of Phi.
        largest, tolerance, halvings, shrink: see `slope_at_zero`.
    """
    of_omega = along == "parameters"
    direction = unit_direction(step.omega if of_omega else step.coefficients, seed)
    pulled = pull_back(student, step, cotangents.values())
    ours = {
        name: float(torch.dot(omega_bar if of_omega else phi_bar, direction))
        for name, (omega_bar, phi_bar) in zip(cotangents, pulled, strict=True)
    }
    # Every product at once: keeping a gradient for each distance would take more memory than an unroll.
    known: dict[float, dict[str, float]] = {}

    def products(distance: float) -> dict[str, float]:
        if distance not in known:
            student.set_omega(step.omega + distance * direction if of_omega else step.omega)
            phi = step.coefficients if of_omega else step.coefficients + distance * direction
            gradient = student_gradient(student, step.batch, phi, step.update)
            known[distance] = {name: float(torch.dot(v, gradient)) for name, v in cotangents.items()}
        return known[distance]

    search = {"tolerance": tolerance, "halvings": halvings, "shrink": shrink}
    found = {
        name: Comparison(value, slope_at_zero(lambda distance, of=name: products(distance)[of], largest, **search))
        for name, value in ours.items()
    }
    student.set_omega(step.omega)
    return found


def compare_adjoint(rule: UpdateRule, clipping: Clipping, size: StepSize, seed: int, length: int = 32) -> float:
    """Return the relative error of the adjoint of clipping and a rule, on short random vectors, against differences.

    Args:
        rule, clipping: what is checked; clipping is made to be active where it is on.
        size: learning rate and number of the update.
        seed, length: of the vectors.
    """
    generator = torch.Generator().manual_seed(seed)

    def draw() -> Tensor:
        return torch.randn(length, generator=generator, dtype=torch.float64)

    omega, gradient = draw(), draw()
    if clipping.max_norm > 0:
        gradient = gradient * (3 * clipping.max_norm / gradient.norm())
    # Second moments are never negative; a first moment may be anything. One near 0 would drown all other slopes.
    mean_square = clipping.apply(gradient).square().mean()
    buffers = tuple((0.5 + draw().square()) * mean_square for _ in range(rule.buffer_count))
    inputs = (omega, gradient, *buffers)
    directions = [part.abs().mean() * draw() for part in inputs]
    outputs_bar = [draw() for _ in range(1 + rule.buffer_count)]

    def moved(distance: float) -> float:
        point, gradient, *state = (part + distance * way for part, way in zip(inputs, directions, strict=True))
        new, new_state = rule.apply(point, tuple(state), clipping.apply(gradient), size)
        return sum(float(torch.dot(bar, out)) for bar, out in zip(outputs_bar, (new, *new_state), strict=True))

    clipped = clipping.apply(gradient)
    omega_bar, buffers_bar, clipped_bar = rule.adjoint(
        omega, buffers, clipped, size, outputs_bar[0], tuple(outputs_bar[1:])
    )
    found = (omega_bar, clipping.adjoint(gradient, clipped_bar), *buffers_bar)
    ours = sum(float(torch.dot(bar, way)) for bar, way in zip(found, directions, strict=True))
    return Comparison(ours, slope_at_zero(moved, 1e-3)).error


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
