"""The Student protocol: all that unroll, reverse pass and outer loop need to know of a student."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from fairseq_l2t.loss.student_state import StudentState
from fairseq_l2t.unroll.flat_parameters import FlatParameters
from fairseq_l2t.unroll.update_rules import Clipping, StepSize, UpdateRule

__all__ = ["BatchLoss", "NonFiniteError", "Student"]

Batch = Sequence[Any]
"""The micro-batches of one update; what a micro-batch is, only the student knows."""


class NonFiniteError(ArithmeticError):
    """NaN or infinity in a student's update, an adjoint or a measure; the message names where."""


@dataclass(frozen=True)
class BatchLoss:
    """The loss of one micro-batch.

    Args:
        total: loss summed over its target tokens, a differentiable scalar.
        nll: negative log-likelihood summed over its target tokens, nats; None where it was not asked for.
        correct: number of target tokens that are the student's first choice; None likewise.
        tokens: number of target tokens.
    """

    total: Tensor
    nll: Tensor | None
    correct: Tensor | None
    tokens: int


class Student(Protocol):
    """A model under training, its parameters one flat vector.

    ``omega`` (n,) holds the parameters, ``buffers`` the optimizer state, ``update`` the number of updates made.
    """

    omega: Tensor
    buffers: tuple[Tensor, ...]
    update: int
    parameters: FlatParameters
    rule: UpdateRule
    clipping: Clipping
    state: StudentState
    coefficient_count: int
    gradient_scaling: Any
    """A `unroll.difference_products.GradientScaling` where the student scales gradients inside, else None."""
    cross_entropy_updates: int
    """Updates at the start of a life that use plain cross-entropy, whatever the teacher says."""

    def next_batch(self) -> Batch:
        """Return the micro-batches of the next update and move on in the training data."""

    def step_size(self) -> StepSize:
        """Return the learning rate of the update that is made next."""

    def losses(self, batch: Batch, coefficients: Tensor | None, *, measure: bool) -> Iterator[BatchLoss]:
        """Yield the loss of each micro-batch at the parameters as they are; None: plain cross-entropy.

        ``measure``: whether the nll and the number of correct tokens are wanted too.
        """

    def sample_size(self, batch: Batch) -> float:
        """Return the number the summed loss of ``batch`` is divided by (target tokens)."""

    def set_omega(self, omega: Tensor) -> None:
        """Write the parameters (n,)."""

    def finish_update(self, omega: Tensor, buffers: tuple[Tensor, ...]) -> None:
        """Take the outcome of an update: parameters, optimizer state, one update more."""

    def replay(self, update: int) -> AbstractContextManager[None]:
        """Fix all randomness (dropout) to that of update number ``update``; restore the caller's on exit."""

    def second_derivatives(self) -> AbstractContextManager[None]:
        """Make double backward through ``losses`` exist and be right (see `kernels.twice_differentiable`)."""
