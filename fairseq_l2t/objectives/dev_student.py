"""The interface between an objective and a student, and sums over dev pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from fairseq_l2t.unroll.flat_parameters import FlatParameters

__all__ = [
    "DevStudent",
    "Hypotheses",
    "Objective",
    "ReferenceStudent",
    "add_gradient",
    "required_gradient",
    "sum_over_references",
]


@dataclass(frozen=True)
class Objective:
    """A measure in [0, 1] to be maximised.

    Args:
        value: the measure.
        gradient: its gradient (n,) with respect to omega.
    """

    value: float
    gradient: Tensor


@dataclass(frozen=True)
class Hypotheses:
    """Hypotheses for some dev pairs, in one list.

    Args:
        owner: for each hypothesis, the index of its pair in the list of pairs.
        tokens: for each hypothesis, its target entries, with end-of-sentence if it was reached.
    """

    owner: list[int]
    tokens: list[tuple[int, ...]]


class ReferenceStudent(Protocol):
    """A student whose references can be scored, in eval mode (no dropout); classifiers have references of one token."""

    @property
    def omega(self) -> Tensor:
        """Parameters (n,)."""

    @property
    def parameters(self) -> FlatParameters:
        """The parameters of the model as views of one vector."""

    def dev_chunks(self, pairs: Sequence[int]) -> Iterator[list[int]]:
        """Yield ``pairs`` in lists small enough for one forward and backward pass over their references."""

    def reference_log_probs(self, pairs: Sequence[int], inverse_temperature: float = 1.0) -> tuple[Tensor, Tensor]:
        """Return ``log p(y_r | x, y_<r)`` of the references (pairs, length) and the mask of real tokens.

        ``inverse_temperature`` b: use the renormalised power ``p^b`` in place of p.
        """

    def reference_distributions(self, pairs: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Return ``log p(. | x, y_<r)`` (pairs, length, entries), the references and the mask (pairs, length)."""


class DevStudent(ReferenceStudent, Protocol):
    """A sequence student whose references and own hypotheses can be scored, in eval mode (no dropout)."""

    def draw(self, pairs: Sequence[int], samples: int, generator: torch.Generator) -> list[list[tuple[int, ...]]]:
        """Return ``samples`` hypotheses for each pair, sampled from the student's own distribution."""

    def hypothesis_chunks(self, drawn: Sequence[Sequence[tuple[int, ...]]]) -> Iterator[list[int]]:
        """Yield all indices of ``drawn``, in lists small enough for one forward and backward pass over their rows."""

    def hypothesis_log_probs(self, pairs: Sequence[int], hypotheses: Hypotheses) -> Tensor:
        """Return the log-probability (hypotheses,) of each hypothesis given its source, differentiable."""

    def hypothesis_text(self, tokens: Sequence[int]) -> str:
        """Return the text of a hypothesis for the score."""

    def reference_text(self, pair: int) -> str:
        """Return the text of the reference of a dev pair."""


def add_gradient(total: Tensor | None, student: ReferenceStudent, scalar: Tensor) -> Tensor:
    """Return ``total`` plus the gradient (n,) of ``scalar`` with respect to the student's parameters."""
    gradients = torch.autograd.grad(scalar, student.parameters.parameters, allow_unused=True)
    flat = student.parameters.gather(gradients).to(student.omega.dtype)
    return flat if total is None else total.add_(flat)


def required_gradient(gradient: Tensor | None) -> Tensor:
    """Return ``gradient`` (n,).

    Raises:
        ValueError: None, because the student yielded no chunk of the dev pairs.
    """
    if gradient is None:
        raise ValueError("dev pairs: the student yielded no chunk of them; expected at least one")
    return gradient


def sum_over_references(
    student: ReferenceStudent,
    pairs: Sequence[int],
    token_value: Callable[[Tensor], Tensor],
    inverse_temperature: float = 1.0,
) -> tuple[float, int, Tensor]:
    """Return the sum of a value over the reference tokens of ``pairs``, their number, and the sum's gradient (n,).

    Args:
        student: student at the parameters of interest; references are scored by teacher forcing.
        pairs: numbers of dev pairs.
        token_value: function from ``log p(y_r | x, y_<r)`` (pairs, length) to the value of each token, same shape.
        inverse_temperature: see `ReferenceStudent.reference_log_probs`.

    Raises:
        ValueError: no pairs.
    """
    if not pairs:
        raise ValueError("pairs: none; expected at least one dev pair")
    value, tokens = 0.0, 0
    gradient: Tensor | None = None
    for chunk in student.dev_chunks(pairs):
        with torch.enable_grad():
            log_probs, keep = student.reference_log_probs(chunk, inverse_temperature)
            total = token_value(log_probs).masked_fill(~keep, 0.0).sum()
            gradient = add_gradient(gradient, student, total)
        value, tokens = value + float(total.detach()), tokens + int(keep.sum())
    return value, tokens, required_gradient(gradient)
