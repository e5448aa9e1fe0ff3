"""The product with the Jacobian of the student's gradient from the difference of two gradients: fast, approximate.

If the gradient is that of a scalar, its Jacobian is symmetric and ``J^T v = J v``, the slope of the gradient along v
(Pearlmutter 1994; used for second-order architecture search by Liu et al. 2019, "DARTS", equation (8)). The gradient at
omega_t is known from the unroll, so that one more gradient per step is enough. The difference is one-sided and in the
student's own precision; it is not exact and never the default.

The update of a student that scales gradients inside (fconv) is not the gradient of any scalar;
`unroll.student.GradientScaling` corrects the difference.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fairseq_l2t.unroll.gradients import plain_gradient
from fairseq_l2t.unroll.step_records import Revisit, Step
from fairseq_l2t.unroll.student import Student

__all__ = ["RELATIVE_DISTANCE", "KnownGradient", "difference_product", "known_gradient"]

RELATIVE_DISTANCE = 2e-3
"""Length of the step along v, relative to the length of omega. Measured in float32 on windows of 40 updates of small
Transformers and LSTMs at several ages: 1e-3 and 3e-3 are alike (0.1 to 25 % off the exact hypergradient); smaller steps
increase rounding errors, larger ones curvature errors."""

ROUNDING_SHARE = 1e-6
"""Mean size of a parameter's gradient, relative to the largest such mean, below which it counts as rounding error."""

SMALL_ELEMENT_SHARE = 1e-2
"""Size of one element of a gradient, relative to the mean of its parameter, below which its cotangent is set to 0."""


@dataclass(frozen=True)
class KnownGradient:
    """The gradient at one update.

    Args:
        vector: (n,), per target token, before clipping.
        of_coefficients: (entries,) d loss per target token / d Phi; None under plain cross-entropy.
        notes: notes of the student's gradient scaling, if it has one.
    """

    vector: Tensor
    of_coefficients: Tensor | None
    notes: Any


def known_gradient(student: Student, revisit: Revisit) -> KnownGradient:
    """Return the gradient of ``revisit``, computed again if the unroll did not save it.

    Args:
        student: at the parameters of the update.
        revisit: the update.
    """
    step = revisit.step
    if revisit.gradient is not None and (revisit.gradient_of_coefficients is not None or step.coefficients is None):
        return KnownGradient(revisit.gradient, revisit.gradient_of_coefficients, revisit.notes)
    with _noting(student) as notes:
        vector, of_coefficients = plain_gradient(
            student, step.batch, step.coefficients, step.update, of_coefficients=True
        )
    return KnownGradient(vector, of_coefficients, notes)


def difference_product(
    student: Student, step: Step, known: KnownGradient, cotangent: Tensor
) -> tuple[Tensor, Tensor | None]:
    """Return ``J^T v`` (n,) and the cotangent of Phi (entries,) for v = ``cotangent``, at ``step``.

    Args:
        student: its parameters change.
        step: the update.
        known: its gradient.
        cotangent: v (n,), of the gradient before clipping.
    """
    scaling = student.gradient_scaling
    cotangent = _without_rounding_errors(student, known.vector, cotangent)
    direction = cotangent if scaling is None else scaling.direction(cotangent)
    length = float(direction.norm())
    if length == 0:
        return torch.zeros_like(cotangent), None if step.coefficients is None else torch.zeros_like(step.coefficients)
    distance = RELATIVE_DISTANCE * float(step.omega.norm()) / length
    student.set_omega(torch.add(step.omega, direction, alpha=distance))
    with _noting(student, cotangent, distance) as notes:
        moved, moved_phi = plain_gradient(student, step.batch, step.coefficients, step.update, of_coefficients=True)
    if moved_phi is not None and known.of_coefficients is not None:
        moved_phi.sub_(known.of_coefficients).div_(distance)
    difference = moved.sub_(known.vector)
    if scaling is not None:
        difference = scaling.corrected(difference, known.notes, notes, 1.0 / student.sample_size(step.batch))
    return difference.div_(distance), moved_phi


def _noting(student: Student, cotangent: Tensor | None = None, distance: float = 0.0) -> AbstractContextManager[Any]:
    if student.gradient_scaling is None:
        return nullcontext()
    return student.gradient_scaling.noting(None if cotangent is None else cotangent * distance)


def _without_rounding_errors(student: Student, gradient: Tensor, cotangent: Tensor) -> Tensor:
    """Return the cotangent (n,) with 0 where the gradient (n,) is 0 or close to rounding error.

    Words that do not occur, units that are off for the whole batch and the keys' bias do not contribute to second
    derivatives. Adam divides by their gradients, so that their cotangents may be very large: a step along v then moves
    nothing else, or switches units on. Measured on a Transformer that learns from update 0 on, without warm-up: 9e8
    times off with all of them, 2 times off without; in calm training there is no difference.
    """
    sizes = student.parameters.sizes
    norms = torch.stack(torch._foreach_norm(gradient.split_with_sizes(sizes)))
    roots = norms / torch.tensor(sizes, device=gradient.device).sqrt()
    least = torch.where(roots < ROUNDING_SHARE * roots.max(), torch.inf, SMALL_ELEMENT_SHARE * roots)
    # 1 where the gradient is larger, else 0; comparing and filling take ten times as long.
    kept = gradient.abs()
    torch._foreach_sub_(kept.split_with_sizes(sizes), least.unbind())
    kept.sign_().clamp_(min=0.0)
    return cotangent * kept
