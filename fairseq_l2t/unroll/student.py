"""The Student protocol: the interface between a student and unroll, sweep and teacher training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from torch import Tensor

from fairseq_l2t.unroll.flat_parameters import FlatParameters
from fairseq_l2t.unroll.update_rules import Buffers, Clipping, StepSize, UpdateRule

__all__ = ["Batch", "BatchLoss", "GradientScaling", "NonFiniteError", "ObservedState", "Student"]

Batch: TypeAlias = Sequence[Any]
"""The micro-batches of one update, in a form that only the student itself reads."""


class NonFiniteError(ArithmeticError):
    """NaN or infinity in a student's update, an adjoint or a measure; the message names the place."""


@dataclass(frozen=True)
class BatchLoss:
    """The loss of one micro-batch.

    Args:
        total: loss summed over its target tokens, a differentiable scalar.
        nll: negative log-likelihood summed over its target tokens, nats; None unless requested.
        correct: number of target tokens that are the student's first choice; None unless requested.
        tokens: number of target tokens.
    """

    total: Tensor
    nll: Tensor | None
    correct: Tensor | None
    tokens: int


class GradientScaling(Protocol):
    """Scaling inside a student's update ``g = D H``, H the gradient of a scalar.

    ``J^T v = H' D v`` is then the slope of H along D v (`unroll.difference_products`).
    """

    def noting(self, scaled: Tensor | None = None) -> AbstractContextManager[Any]:
        """Return a context in which one gradient is computed; its value is the notes that `corrected` needs.

        ``scaled`` (n,): v times the distance, if the student's parameters were moved along `direction`.
        """

    def direction(self, cotangent: Tensor) -> Tensor:
        """Return the direction (n,) in which the parameters move for v = ``cotangent`` (n,)."""

    def corrected(self, difference: Tensor, before: Any, after: Any, scale: float) -> Tensor:
        """Return the difference (n,) of H for the ``difference`` (n,) of g, given the notes of both gradients.

        ``scale``: 1 / sample size; notes belong to losses summed over target tokens.
        """


class ObservedState(Protocol):
    """The measures that form the student's state s_t; see `loss.student_state`."""

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the features."""

    def vector(self, update: int) -> Tensor:
        """Return s_t (features,) in float64, before update number ``update``."""

    def observe_training(self, loss: float, accuracy: float) -> None:
        """Add the measures of one update: nll per target token (nats) and accuracy in [0, 1]."""


class Student(Protocol):
    """A model under training whose parameters are one flat vector."""

    @property
    def omega(self) -> Tensor:
        """Parameters (n,)."""

    @property
    def buffers(self) -> Buffers:
        """Optimizer state, vectors (n,)."""

    @property
    def update(self) -> int:
        """Number of updates made."""

    @property
    def parameters(self) -> FlatParameters:
        """The parameters of the model as views of one vector."""

    @property
    def rule(self) -> UpdateRule:
        """Update rule of the optimizer."""

    @property
    def clipping(self) -> Clipping:
        """Clipping of the gradient before the rule."""

    @property
    def state(self) -> ObservedState:
        """Measures of the student's progress."""

    @property
    def coefficient_count(self) -> int:
        """Number of target entries of a teacher for this student."""

    @property
    def gradient_scaling(self) -> GradientScaling | None:
        """Scaling of gradients inside the model; None: none."""

    @property
    def cross_entropy_updates(self) -> int:
        """Number of updates at the start of a life that use plain cross-entropy without the teacher."""

    def next_batch(self) -> Batch:
        """Return the micro-batches of the next update and move on in the training data."""

    def step_size(self) -> StepSize:
        """Return the learning rate of the next update."""

    def losses(self, batch: Batch, coefficients: Tensor | None, *, measure: bool) -> Iterator[BatchLoss]:
        """Yield the loss of each micro-batch at the current parameters.

        Args:
            batch: the micro-batches.
            coefficients: Phi_t (coefficients,); None: plain cross-entropy.
            measure: whether to compute the nll and the number of correct tokens too.
        """

    def sample_size(self, batch: Batch) -> float:
        """Return the divisor of the summed loss of ``batch``: its number of target tokens."""

    def set_omega(self, omega: Tensor) -> None:
        """Write the parameters (n,)."""

    def finish_update(self, omega: Tensor, buffers: Buffers) -> None:
        """Store the result of an update, parameters and optimizer state, and count the update."""

    def replay(self, update: int) -> AbstractContextManager[None]:
        """Set all randomness (dropout) to that of update number ``update``; restore the caller's on exit."""

    def second_derivatives(self) -> AbstractContextManager[None]:
        """Return a context in which double backward through ``losses`` exists and is correct.

        See `kernels.twice_differentiable`.
        """
