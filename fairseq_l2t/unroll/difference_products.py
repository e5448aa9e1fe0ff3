"""The product with the Jacobian of the student's gradient from the difference of two gradients: fast, approximate.

Where the gradient is that of a scalar, its Jacobian is symmetric and ``J^T v = J v``, which is the slope of the
gradient along v (Pearlmutter 1994; used for second-order architecture search by Liu et al. 2019, "DARTS", equation
(8)). The gradient at omega_t is known from the unroll, so that one more gradient a step is all it takes. One-sided, in
the student's own precision: not exact, and never the default.

A student that scales gradients inside (fconv) has an update that is the gradient of nothing; `GradientScaling` says how
the difference is put right.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor

from fairseq_l2t.unroll.gradients import plain_gradient
from fairseq_l2t.unroll.steps import Revisit
from fairseq_l2t.unroll.student import Student

__all__ = ["RADIUS", "GradientScaling", "difference_product", "with_gradients"]

RADIUS = 2e-3
"""Length of the step along v, relative to the length of omega. Measured in float32 on windows of 40 updates of small
Transformers and LSTMs at several ages: 1e-3 and 3e-3 are alike (0.1 to 25 % off the exact hypergradient), below it
rounding grows, above it curvature."""

_ROUNDING = 1e-6
"""Mean size of a parameter's gradient, relative to the largest one's, below which it is taken for rounding."""

_SMALL = 1e-2
"""Size of one number of a gradient, relative to the mean of its parameter's, below which its cotangent is left out."""


class GradientScaling(Protocol):
    """A student's update ``g = D H``, H the gradient of a scalar: ``J^T v = H' D v`` is a slope of H along D v."""

    def noting(self, scaled: Tensor | None = None) -> AbstractContextManager[Any]:
        """While a gradient is computed inside, note what `corrected` needs, and yield the notes.

        ``scaled``: v times the distance, where the student has been moved along `direction`.
        """

    def direction(self, cotangent: Tensor) -> Tensor:
        """Return the direction (n,) the parameters are moved along for v = ``cotangent``."""

    def corrected(self, difference: Tensor, before: Any, after: Any, scale: float) -> Tensor:
        """Return the difference (n,) of H for that of g, given the notes of both gradients.

        ``scale``: 1 / sample size; notes are of losses summed over target tokens.
        """


def with_gradients(student: Student, revisit: Revisit) -> Revisit:
    """Return ``revisit`` with its gradients, computed again where the unroll did not keep them.

    Args:
        student: at the parameters of the update.
        revisit: the update.
    """
    step = revisit.step
    if revisit.gradient is not None and (revisit.gradient_of_coefficients is not None or step.coefficients is None):
        return revisit
    with _noting(student) as notes:
        gradient, of_coefficients = plain_gradient(
            student, step.batch, step.coefficients, step.update, of_coefficients=True
        )
    return replace(revisit, gradient=gradient, gradient_of_coefficients=of_coefficients, notes=notes)


def difference_product(student: Student, revisit: Revisit, cotangent: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return ``J^T v`` (n,) and the cotangent of Phi (entries,) for v = ``cotangent``, at ``revisit.step``.

    Args:
        student: its parameters are moved.
        revisit: an update `with_gradients`.
        cotangent: v (n,), of the gradient before clipping.
    """
    step, scaling = revisit.step, student.gradient_scaling
    cotangent = _where_gradients_are_real(student, revisit.gradient, cotangent)
    direction = cotangent if scaling is None else scaling.direction(cotangent)
    length = float(direction.norm())
    if length == 0:
        return torch.zeros_like(cotangent), None if step.coefficients is None else torch.zeros_like(step.coefficients)
    distance = RADIUS * float(step.omega.norm()) / length
    student.set_omega(torch.add(step.omega, direction, alpha=distance))
    with _noting(student, cotangent, distance) as notes:
        moved, moved_phi = plain_gradient(student, step.batch, step.coefficients, step.update, of_coefficients=True)
    if moved_phi is not None:
        moved_phi.sub_(revisit.gradient_of_coefficients).div_(distance)
    difference = moved.sub_(revisit.gradient)
    if scaling is not None:
        difference = scaling.corrected(difference, revisit.notes, notes, 1.0 / student.sample_size(step.batch))
    return difference.div_(distance), moved_phi


def _noting(student: Student, cotangent: Tensor | None = None, distance: float = 0.0) -> AbstractContextManager[Any]:
    if student.gradient_scaling is None:
        return nullcontext()
    return student.gradient_scaling.noting(None if cotangent is None else cotangent * distance)


def _where_gradients_are_real(student: Student, gradient: Tensor, cotangent: Tensor) -> Tensor:
    """Return the cotangent without what belongs to gradients that are 0, or little more than rounding.

    Words that do not occur, units that are switched off for the whole batch and the keys' bias have no part in the
    second derivatives. Yet Adam divides by their gradients: their cotangents may be so large that a step along v moves
    nothing else, or switches units on. Measured on a Transformer that learns from update 0 on, without warm-up: 9e8
    times off with all of them, 2 times off without; where training is calm it makes no difference.
    """
    sizes = student.parameters.sizes
    norms = torch.stack(torch._foreach_norm(gradient.split(sizes)))
    roots = norms / torch.tensor(sizes, device=gradient.device).sqrt()
    least = torch.where(roots < _ROUNDING * roots.max(), torch.inf, _SMALL * roots)
    # 1 where the gradient is larger, else 0; comparing and filling take ten times as long.
    kept = gradient.abs()
    torch._foreach_sub_(kept.split(sizes), least.unbind())
    kept.sign_().clamp_(min=0.0)
    return cotangent * kept
