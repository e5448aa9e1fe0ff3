"""The adjoint sweep: the hypergradient of a measure at omega_T with respect to the teacher.

Source: Wu et al., NeurIPS 2018, equations (3) to (5), written there for plain SGD. Here an update consists of a
gradient, clipping and a rule with buffers, so that one step back is

1. the adjoint of the rule and of the clipping (elementwise), which yields the cotangent v of the gradient g;
2. one vector-Jacobian product of ``g(omega_t, Phi_t)`` with v, which yields both ``J^T v``, the contribution to
   the adjoint of omega_t, and the cotangent of Phi_t. J is symmetric only if g is the gradient of a scalar; J^T is
   used throughout.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fairseq_l2t.loss.teacher import Teacher
from fairseq_l2t.unroll.difference_products import difference_product, known_gradient
from fairseq_l2t.unroll.gradients import differentiable_gradient, graphs_of, pull_back_through
from fairseq_l2t.unroll.in_place_updates import adjoint_in_place
from fairseq_l2t.unroll.step_records import Revisit, Step
from fairseq_l2t.unroll.student import NonFiniteError, Student
from fairseq_l2t.unroll.trajectory import Trajectory
from fairseq_l2t.unroll.update_rules import Buffers
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
"""Methods for the product with the Jacobian of the student's gradient: double backward, or a difference of gradients
(`unroll.difference_products`)."""


@dataclass(frozen=True)
class Hypergradient:
    """The result of a sweep.

    Args:
        theta: d measure / d theta by parameter name of the teacher, in the shapes of the parameters.
        adjoint_norm: norm of d measure / d omega_0, at the beginning of the trajectory.
        pulls: for every update with a teacher, in order, the derivative of the measure with respect to a number added
            to all coefficients of targets (for a full Phi, its diagonal) of that update alone. If the signs differ
            over a life, no fixed loss is optimal.
    """

    theta: dict[str, Tensor]
    adjoint_norm: float
    pulls: tuple[float, ...] = ()

    @property
    def norm(self) -> float:
        """Euclidean norm over all of theta."""
        # torch's square root, not math's: they can differ in the last bit, which clipping would hand on to the teacher.
        return float(torch.sqrt(_sum_of_squares(part.double() for part in self.theta.values())))

    def relative_error(self, exact: Hypergradient) -> float:
        """Return the norm of the difference to ``exact``, divided by the norm of ``exact``."""
        gap = float(_sum_of_squares(part.double() - exact.theta[name].double() for name, part in self.theta.items()))
        return math.sqrt(gap) / exact.norm if exact.norm else (0.0 if gap == 0 else math.inf)


@dataclass(frozen=True)
class StepBack:
    """One step of the sweep.

    Args:
        update: number of the student update.
        adjoint: d measure / d omega (n,) before that update.
        theta: contribution of the update to d measure / d theta by name; None under plain cross-entropy.
        pull: d measure / d (a number added to all coefficients of targets), scalar; None under plain cross-entropy.
    """

    update: int
    adjoint: Tensor
    theta: dict[str, Tensor] | None
    pull: Tensor | None


def hypergradient(trajectory: Trajectory | Window, grad_omega: Tensor, hvp: str = "exact") -> dict[str, Tensor]:
    """Return d measure / d theta by name, for ``grad_omega`` = d measure / d omega_T (n,).

    Source: Wu et al., NeurIPS 2018, equations (3) to (5). States are data: nothing is differentiated through s_t. The
    student's parameters are at omega_T again afterwards.

    Args:
        trajectory: the result of `unroll.trajectory.unroll`.
        grad_omega: gradient (n,) of the measure at omega_T.
        hvp: a name in `PRODUCTS`; ``finite-difference`` is a faster approximation.

    Raises:
        ValueError: ``grad_omega`` has another shape than omega, or ``hvp`` is unknown.
        NonFiniteError: NaN or infinity in the adjoint; the message names the update.

    Example:
        >>> import torch
        >>> from fairseq_l2t.core import Teacher, hypergradient, unroll
        >>> from fairseq_l2t.testing.toy_student import ToyStudent
        >>> student = ToyStudent()
        >>> teacher = Teacher.for_student(student, keys=3)
        >>> trajectory = unroll(student, teacher, steps=4)
        >>> gradient = hypergradient(trajectory, torch.ones_like(student.omega))
        >>> {name: tuple(part.shape) for name, part in gradient.items()}
        {'values': (11, 3), 'queries': (3, 5)}
    """
    return hypergradient_with_adjoint(trajectory, grad_omega, hvp).theta


def hypergradient_with_adjoint(
    trajectory: Trajectory | Window,
    grad_omega: Tensor,
    hvp: str = "exact",
    after_each: Callable[[int], None] = lambda update: None,
) -> Hypergradient:
    """Return the `hypergradient` with the norm of the adjoint and the pulls; arguments and errors as there.

    ``after_each`` is called with the number of the student update after every step back.
    """
    theta_bar = {name: torch.zeros_like(parameter) for name, parameter in trajectory.teacher.named_parameters()}
    adjoint, pulls = grad_omega, []
    for step_back in _sweep(trajectory, grad_omega, hvp):
        for name, share in (step_back.theta or {}).items():
            theta_bar[name] += share
        if step_back.pull is not None:
            pulls.append(float(step_back.pull))
        adjoint = step_back.adjoint
        after_each(step_back.update)
    return Hypergradient(theta_bar, float(adjoint.norm()), tuple(reversed(pulls)))


def adjoint_sweep(trajectory: Trajectory | Window, grad_omega: Tensor) -> Iterator[StepBack]:
    """Yield the steps of the reverse pass, last update first; the sum of their ``theta`` is the hypergradient.

    The sum over the first W steps is the hypergradient truncated to the last W updates. Arguments and errors as in
    `hypergradient`. The student's parameters are at omega_T again when the sweep ends.
    """
    for step_back in _sweep(trajectory, grad_omega):
        yield replace(step_back, adjoint=step_back.adjoint.clone())


def _sweep(trajectory: Trajectory | Window, grad_omega: Tensor, hvp: str = "exact") -> Iterator[StepBack]:
    """Yield the steps of `adjoint_sweep`; all share one adjoint vector, which changes in place."""
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
            phi_bar, state = _step_back(student, revisit, omega_bar, buffers_bar, hvp), revisit.step.state
            theta = None if phi_bar is None or state is None else _theta_share(teacher, state, phi_bar)
            pull = None if phi_bar is None else phi_bar[of_targets].sum()
            yield StepBack(revisit.step.update, omega_bar, theta, pull)
    finally:
        student.set_omega(final_omega)


def pull_back(student: Student, step: Step, cotangents: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Yield ``J^T v`` (n,) and the cotangent of Phi (entries,) for each v, J the Jacobian of the student's gradient.

    Args:
        student: its parameters are set to ``step.omega``, and stay there.
        step: parameters, batch and coefficients of the gradient.
        cotangents: the v (n,), cotangents of the gradient before clipping; read one at a time.
    """
    student.set_omega(step.omega)
    graphs = list(graphs_of(student, step.batch, step.coefficients, step.update))
    scale = 1.0 / student.sample_size(step.batch)
    for cotangent in cotangents:
        yield pull_back_through(student, graphs, cotangent, scale, keep_graph=True)


def _step_back(student: Student, revisit: Revisit, omega_bar: Tensor, buffers_bar: Buffers, hvp: str) -> Tensor | None:
    """Replace the cotangents of (omega_{t+1}, buffers_{t+1}) by those of (omega_t, buffers_t), in place.

    Returns:
        The cotangent of Phi_t (its coefficients,); None under plain cross-entropy.
    """
    step = revisit.step
    student.set_omega(step.omega)

    def cotangent_of(gradient: Tensor) -> Tensor:
        """Return the cotangent (n,) of the ``gradient`` (n,) before clipping."""
        clipped = student.clipping.apply(gradient)
        clipped_bar = adjoint_in_place(
            student.rule, step.omega, step.buffers, clipped, step.size, omega_bar, buffers_bar
        )
        return student.clipping.adjoint(gradient, clipped_bar)

    if hvp == "exact":
        graphs = revisit.graphs or list(graphs_of(student, step.batch, step.coefficients, step.update))
        # Not the gradient of the update itself, which other kernels may have rounded differently: not every memory
        # plan saves it, and all plans give the same bits.
        gradient_bar = cotangent_of(differentiable_gradient(student, graphs, step.batch))
        pulled, phi_bar = pull_back_through(student, graphs, gradient_bar, 1.0 / student.sample_size(step.batch))
    else:
        known = known_gradient(student, revisit)
        pulled, phi_bar = difference_product(student, step, known, cotangent_of(known.vector))
    omega_bar.add_(pulled)
    if not bool(torch.isfinite(omega_bar.sum())):
        bad = student.parameters.first_bad(omega_bar) or "(sum)"
        raise NonFiniteError(f"adjoint of student update {step.update}: {bad} is not finite")
    return phi_bar


def _theta_share(teacher: Teacher, state: Tensor, phi_bar: Tensor) -> dict[str, Tensor]:
    named = dict(teacher.named_parameters())
    with torch.enable_grad():
        coefficients = teacher(state)
    shares = torch.autograd.grad(coefficients, list(named.values()), grad_outputs=phi_bar)
    return dict(zip(named, shares, strict=True))


def _sum_of_squares(parts: Iterable[Tensor]) -> Tensor:
    return torch.stack([part.square().sum() for part in parts]).sum()
