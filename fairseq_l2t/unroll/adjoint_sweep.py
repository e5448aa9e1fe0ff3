"""The adjoint sweep: the hypergradient of a measure at omega_T with respect to the teacher.

Source: Wu et al., NeurIPS 2018, equations (3) to (5), written there for plain SGD. Here an update is a gradient,
then clipping, then a rule with buffers, so that one step back is

1. the adjoint of the rule and of the clipping (elementwise), which yields the cotangent v of the gradient g;
2. one vector-Jacobian product of ``g(omega_t, Phi_t)`` with v, which yields both ``J^T v``, the share of
   omega_t, and the share of Phi_t. Only where g is the gradient of a scalar is J symmetric; J^T is used throughout.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fairseq_l2t.unroll.difference_products import difference_product, with_gradients
from fairseq_l2t.unroll.gradients import differentiable_gradient, graphs_of, pull_back_through
from fairseq_l2t.unroll.in_place_updates import adjoint_in_place
from fairseq_l2t.unroll.steps import Revisit, Step
from fairseq_l2t.unroll.student import NonFiniteError, Student
from fairseq_l2t.unroll.trajectory import Trajectory
from fairseq_l2t.unroll.window import Window

__all__ = [
    "PRODUCTS",
    "Hypergradient",
    "StepBack",
    "adjoint_sweep",
    "hypergradient",
    "hypergradient_with_adjoint",
    "pull_back",
]


PRODUCTS = ("exact", "finite-difference")
"""How the product with the Jacobian of the student's gradient is taken: by double backward, or from two gradients."""


@dataclass(frozen=True)
class Hypergradient:
    """What the sweep found.

    Args:
        theta: d measure / d theta by parameter name of the teacher, in the shapes of the parameters.
        adjoint_norm: norm of d measure / d omega_0, at the beginning of the trajectory.
        pulls: for every update that the teacher had a part in, first one first, the derivative of the measure by a
            number added to all coefficients of targets (of a full Phi, its diagonal) of that update alone. Where they
            change sign over a life, no fixed loss is the best.
    """

    theta: dict[str, Tensor]
    adjoint_norm: float
    pulls: tuple[float, ...] = ()

    @property
    def norm(self) -> float:
        """Euclidean norm over all of theta."""
        return float(torch.sqrt(sum(part.double().square().sum() for part in self.theta.values())))

    def relative_error(self, exact: Hypergradient) -> float:
        """Return the norm of the difference to ``exact``, relative to its norm."""
        gap = sum((part.double() - exact.theta[name].double()).square().sum() for name, part in self.theta.items())
        return math.sqrt(float(gap)) / exact.norm if exact.norm else (0.0 if float(gap) == 0 else math.inf)


@dataclass(frozen=True)
class StepBack:
    """One step of the sweep.

    Args:
        update: number of the student update that was gone back through.
        adjoint: d measure / d omega (n,) before that update.
        theta: share of the update in d measure / d theta by name; None where it used plain cross-entropy.
        pull: d measure / d (a number added to all coefficients of targets), scalar; None likewise.
    """

    update: int
    adjoint: Tensor
    theta: dict[str, Tensor] | None
    pull: Tensor | None


def hypergradient(trajectory: Trajectory | Window, grad_omega: Tensor, hvp: str = "exact") -> dict[str, Tensor]:
    """Return d measure / d theta by name, for ``grad_omega`` = d measure / d omega_T (n,).

    ``hvp``: a name in `PRODUCTS`; ``finite-difference`` is faster, and an approximation.

    The student's parameters are at omega_T again afterwards. States are data: nothing flows through s_t.
    """
    return hypergradient_with_adjoint(trajectory, grad_omega, hvp).theta


def hypergradient_with_adjoint(
    trajectory: Trajectory | Window, grad_omega: Tensor, hvp: str = "exact"
) -> Hypergradient:
    """As `hypergradient`, with the norm of the adjoint beside it.

    Raises:
        ValueError: ``grad_omega`` is not of the shape of omega, or an unknown ``hvp``.
        NonFiniteError: NaN or infinity in the adjoint, with the update it appeared at.
    """
    theta_bar = {name: torch.zeros_like(parameter) for name, parameter in trajectory.teacher.named_parameters()}
    adjoint, pulls = grad_omega, []
    for step_back in _sweep(trajectory, grad_omega, hvp):
        for name, share in (step_back.theta or {}).items():
            theta_bar[name] += share
        if step_back.pull is not None:
            pulls.append(float(step_back.pull))
        adjoint = step_back.adjoint
    return Hypergradient(theta_bar, float(adjoint.norm()), tuple(reversed(pulls)))


def adjoint_sweep(trajectory: Trajectory | Window, grad_omega: Tensor) -> Iterator[StepBack]:
    """Yield the steps of the reverse pass, last update first: their shares add up to the hypergradient.

    The sum over the last W of them is the hypergradient truncated to W updates. Raises as
    `hypergradient_with_adjoint`; the student's parameters are at omega_T again when the sweep ends.
    """
    for step_back in _sweep(trajectory, grad_omega):
        yield replace(step_back, adjoint=step_back.adjoint.clone())


def _sweep(trajectory: Trajectory | Window, grad_omega: Tensor, hvp: str = "exact") -> Iterator[StepBack]:
    """As `adjoint_sweep`, but every step's adjoint is the same vector, moved on in place."""
    student, teacher = trajectory.student, trajectory.teacher
    of_targets = teacher.rows["of_targets"]
    if hvp not in PRODUCTS:
        raise ValueError(f"--hvp: {hvp}; expected one of {', '.join(PRODUCTS)}")
    if grad_omega.shape != student.omega.shape:
        raise ValueError(f"grad_omega: shape {tuple(grad_omega.shape)}; expected {tuple(student.omega.shape)}")
    final_omega = student.omega.clone()
    omega_bar = grad_omega.to(student.omega).clone()
    buffers_bar = tuple(torch.zeros_like(buffer) for buffer in student.buffers)
    try:
        for revisit in trajectory.backwards():
            phi_bar = _step_back(student, revisit, omega_bar, buffers_bar, hvp)
            theta = None if phi_bar is None else _theta_share(teacher, revisit.step.state, phi_bar)
            pull = None if phi_bar is None else phi_bar[of_targets].sum()
            yield StepBack(revisit.step.update, omega_bar, theta, pull)
    finally:
        student.set_omega(final_omega)


def pull_back(student: Student, step: Step, cotangents: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Yield ``J^T v`` (n,) and the cotangent of Phi (entries,) for each v, J the Jacobian of the student's gradient.

    Args:
        student: its parameters are set to ``step.omega``, and stay there.
        step: where the gradient is taken, and on which batch.
        cotangents: the v (n,), cotangents of the gradient before clipping; asked for one at a time.
    """
    student.set_omega(step.omega)
    graphs = list(graphs_of(student, step.batch, step.coefficients, step.update))
    scale = 1.0 / student.sample_size(step.batch)
    for cotangent in cotangents:
        yield pull_back_through(student, graphs, cotangent, scale, keep_graph=True)


def _step_back(
    student: Student, revisit: Revisit, omega_bar: Tensor, buffers_bar: tuple[Tensor, ...], hvp: str
) -> Tensor | None:
    """Turn the cotangents of (omega_{t+1}, buffers_{t+1}) into those of (omega_t, buffers_t), in place.

    Returns:
        The cotangent of Phi_t (its coefficients,); None under plain cross-entropy.
    """
    step = revisit.step
    student.set_omega(step.omega)
    if hvp == "exact":
        graphs = revisit.graphs or list(graphs_of(student, step.batch, step.coefficients, step.update))
        # Not the gradient the update was made with, which other kernels may have rounded in another way: it is not
        # known under every memory plan, and all plans shall give the same bits.
        gradient = differentiable_gradient(student, graphs, step.batch)
    else:
        revisit = with_gradients(student, revisit)
        gradient = revisit.gradient
    clipped = student.clipping.apply(gradient)
    clipped_bar = adjoint_in_place(student.rule, step.omega, step.buffers, clipped, step.size, omega_bar, buffers_bar)
    gradient_bar = student.clipping.adjoint(gradient, clipped_bar)
    if hvp == "exact":
        pulled, phi_bar = pull_back_through(student, graphs, gradient_bar, 1.0 / student.sample_size(step.batch))
    else:
        pulled, phi_bar = difference_product(student, revisit, gradient_bar)
    omega_bar.add_(pulled)
    if not bool(torch.isfinite(omega_bar.sum())):
        bad = student.parameters.first_bad(omega_bar) or "(sum)"
        raise NonFiniteError(f"adjoint of student update {step.update}: {bad} is not finite")
    return phi_bar


def _theta_share(teacher, state: Tensor, phi_bar: Tensor) -> dict[str, Tensor]:
    named = dict(teacher.named_parameters())
    with torch.enable_grad():
        coefficients = teacher(state)
    shares = torch.autograd.grad(coefficients, list(named.values()), grad_outputs=phi_bar)
    return dict(zip(named, shares, strict=True))
