"""The hypergradient of a toy student in two other ways: plain autograd through the unroll, and central differences.

Plain autograd calls none of the package's update rules, clipping, loss, unroll or sweep: the formulas are written out
again with differentiable operations.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import functional_call

from fairseq_l2t.checks.differences import spread
from fairseq_l2t.kernels.twice_differentiable import outer_gradient, twice_differentiable
from fairseq_l2t.loss.teacher import Teacher
from fairseq_l2t.testing.differentiable_rules import differentiable_clipping, differentiable_rule
from fairseq_l2t.testing.toy_student import MicroBatch, RecordedState, ToyStudent
from fairseq_l2t.unroll.adjoint_sweep import hypergradient
from fairseq_l2t.unroll.student import Batch, Student
from fairseq_l2t.unroll.trajectory import Trajectory, unroll
from fairseq_l2t.unroll.update_rules import Adagrad, Adam, Clipping


@dataclass(frozen=True)
class HalfClipping(Clipping):
    """Clipping with a wrong adjoint, which forgets that the factor depends on the gradient: a control."""

    def adjoint(self, gradient: Tensor, clipped_bar: Tensor) -> Tensor:
        """Return the cotangent (n,) of the gradient, without the share of the factor."""
        factor = self.max_norm / (float(gradient.norm()) + 1e-6)
        return clipped_bar * min(1.0, factor)


def toy_student_of(student: Student) -> ToyStudent:
    """Return ``student``; raise TypeError if it is no `ToyStudent`."""
    if not isinstance(student, ToyStudent):
        raise TypeError(f"student: {type(student).__name__}; expected ToyStudent")
    return student


def target_log_probs(student: ToyStudent, omega: Tensor, part: MicroBatch) -> Tensor:
    """Return log p of the targets (tokens,) that count, as a function of ``omega`` (n,)."""
    named = dict(zip(student.parameters.names, student.parameters.split(omega), strict=True))
    logits: Tensor = functional_call(student.model, named, (part.sources,))
    log_probs = logits.log_softmax(-1)
    return log_probs.gather(-1, part.targets.unsqueeze(-1)).squeeze(-1)[part.keep]


def dev_measure(student: ToyStudent, omega: Tensor) -> Tensor:
    """Return the mean probability of the dev targets at ``omega`` (n,), a smooth scalar, without dropout."""
    student.model.eval()
    try:
        return target_log_probs(student, omega, student.dev).exp().mean()
    finally:
        student.model.train()


def dev_gradient(student: ToyStudent) -> Tensor:
    """Return d measure / d omega (n,) at the student's parameters; no gradient is scaled."""
    omega = student.omega.clone().requires_grad_()
    with twice_differentiable(fused=False), outer_gradient():
        return torch.autograd.grad(dev_measure(student, omega), omega)[0]


def _plain_gradient(student: ToyStudent, omega: Tensor, batch: Batch, phi: Tensor | None, update: int) -> Tensor:
    total, tokens = omega.new_zeros(()), 0
    with student.replay(update):
        for part in batch:
            log_probs = target_log_probs(student, omega, part)
            loss = -log_probs
            if phi is not None:
                share = student.shape.cross_entropy_mix
                products = phi[part.targets[part.keep]] * log_probs
                if student.shape.level == "sentence":
                    sentences = torch.split(products, part.keep.sum(1).tolist())
                    products = torch.cat([one.mean().expand(len(one)) for one in sentences])
                sigmoids = 1 / (1 + torch.exp(-products))
                loss = share * loss - (1 - share) * student.shape.scale * sigmoids
            total, tokens = total + loss.sum(), tokens + part.tokens
    return torch.autograd.grad(total, omega, create_graph=True)[0] / tokens


def plain_hypergradient(trajectory: Trajectory) -> dict[str, Tensor]:
    """Return d measure / d theta by one backward pass through a second, functional unroll from the same start."""
    student, teacher = toy_student_of(trajectory.student), trajectory.teacher
    first = trajectory.steps[0]
    omega, buffers = first.omega.clone().requires_grad_(), first.buffers
    with twice_differentiable(fused=False):
        for step in trajectory.steps:
            phi = None if step.state is None else teacher(step.state)
            gradient = _plain_gradient(student, omega, step.batch, phi, step.update)
            gradient = differentiable_clipping(gradient, student.clipping.max_norm)
            omega, buffers = differentiable_rule(student.rule, omega, buffers, gradient, step.size)
        with outer_gradient():
            parts = torch.autograd.grad(dev_measure(student, omega), list(teacher.parameters()))
    return dict(zip((name for name, _ in teacher.named_parameters()), parts, strict=True))


def measured_slope(make: Callable[[], ToyStudent], trajectory: Trajectory, direction: dict[str, Tensor]) -> float:
    """Return the slope of the measure along ``direction`` of theta, by five-point central differences of real unrolls.

    States are those of ``trajectory``: they are data and do not move with theta.
    """
    states = [step.state for step in trajectory.steps]
    # Adagrad and Adam divide by gradients that may be small: the measure bends sooner.
    h = 2e-4 if isinstance(trajectory.student.rule, (Adagrad, Adam)) else 2e-3

    def measure(distance: float) -> float:
        student, teacher = make(), copy.deepcopy(trajectory.teacher)
        student.state = RecordedState(states)
        with torch.no_grad():
            for name, parameter in teacher.named_parameters():
                parameter.add_(direction[name], alpha=distance)
        unroll(student, teacher, len(states))
        return float(dev_measure(student, student.omega).detach())

    return five_point_slope(measure, h)


def five_point_slope(function: Callable[[float], float], h: float) -> float:
    """Return the slope of ``function`` at 0; the error is of fourth order in ``h``."""
    return (8 * (function(h) - function(-h)) - function(2 * h) + function(-2 * h)) / (12 * h)


def random_direction(teacher: Teacher, seed: int) -> dict[str, Tensor]:
    """Return a direction of theta by name, of length 0.1: of the order of the initial coefficients."""
    generator = torch.Generator().manual_seed(seed)
    parts = {
        name: torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
        for name, parameter in teacher.named_parameters()
    }
    length = math.sqrt(sum(float(part.square().sum()) for part in parts.values()))
    return {name: part * (0.1 / length) for name, part in parts.items()}


def slope_along(gradient: dict[str, Tensor], direction: dict[str, Tensor]) -> float:
    """Return the inner product of a hypergradient and a direction."""
    return sum(float((gradient[name] * direction[name]).sum()) for name in direction)


def unrolled(make: Callable[[], ToyStudent], steps: int = 4, keys: int = 3) -> tuple[Trajectory, dict[str, Tensor]]:
    """Return a trajectory of ``steps`` updates and our hypergradient of it.

    Keys differ in their coefficients: a new teacher's hardly do, and the hypergradient of its queries is then
    a difference of numbers 10^6 times as large, of which rounding leaves any two computations 10^-11 apart.
    """
    student = make()
    teacher = spread(Teacher.for_student(student, keys=keys, seed=5), seed=5)
    trajectory = unroll(student, teacher, steps)
    return trajectory, hypergradient(trajectory, dev_gradient(student))
