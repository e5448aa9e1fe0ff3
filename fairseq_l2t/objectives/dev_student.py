"""What an objective asks of a student beside its parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from fairseq_l2t.unroll.flat_parameters import FlatParameters

__all__ = ["DevStudent", "Hypotheses", "Objective", "add_gradient", "sum_over_references"]


@dataclass(frozen=True)
class Objective:
    """A measure in [0, 1], to be maximised, and its gradient (n,) with respect to omega."""

    value: float
    gradient: Tensor


@dataclass(frozen=True)
class Hypotheses:
    """Hypotheses for some dev pairs, flat.

    Args:
        owner: for each hypothesis, the position of its pair in the list of pairs.
        tokens: its target entries, end-of-sentence included where it was reached.
    """

    owner: list[int]
    tokens: list[tuple[int, ...]]


class DevStudent(Protocol):
    """A sequence student that can be measured on dev pairs, in eval mode (no dropout)."""

    omega: Tensor
    parameters: FlatParameters

    def dev_chunks(self, pairs: Sequence[int]) -> Iterator[list[int]]:
        """Yield ``pairs`` in lists whose references are few enough for one forward and backward pass."""

    def reference_log_probs(self, pairs: Sequence[int], inverse_temperature: float = 1.0) -> tuple[Tensor, Tensor]:
        """Return ``log p(y_r | x, y_<r)`` of the references (pairs, length) and the mask of real tokens.

        ``inverse_temperature`` b: of the renormalised power ``p^b`` instead of p.
        """

    def reference_distributions(self, pairs: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Return ``log p(. | x, y_<r)`` (pairs, length, entries), the references and the mask (pairs, length)."""

    def draw(self, pairs: Sequence[int], samples: int, generator: torch.Generator) -> list[list[tuple[int, ...]]]:
        """Return ``samples`` hypotheses for each pair, drawn from the student's own distribution."""

    def hypothesis_chunks(self, drawn: Sequence[Sequence[tuple[int, ...]]]) -> Iterator[list[int]]:
        """Yield all positions in ``drawn``, in lists whose rows are few enough for one forward and backward pass."""

    def hypothesis_log_probs(self, pairs: Sequence[int], hypotheses: Hypotheses) -> Tensor:
        """Return the log-probability (hypotheses,) of each hypothesis given its source, differentiable."""

    def hypothesis_text(self, tokens: Sequence[int]) -> str:
        """Return a hypothesis as the text it is scored as."""

    def reference_text(self, pair: int) -> str:
        """Return the reference of a dev pair as text."""


def add_gradient(total: Tensor | None, student: DevStudent, scalar: Tensor) -> Tensor:
    """Return ``total`` plus the gradient (n,) of ``scalar`` with respect to the student's parameters."""
    gradients = torch.autograd.grad(scalar, student.parameters.parameters, allow_unused=True)
    flat = student.parameters.gather(gradients).to(student.omega.dtype)
    return flat if total is None else total.add_(flat)


def sum_over_references(
    student: DevStudent,
    pairs: Sequence[int],
    token_value: Callable[[Tensor], Tensor],
    inverse_temperature: float = 1.0,
) -> tuple[float, int, Tensor]:
    """Return the sum of a value over the reference tokens of ``pairs``, their number, and the sum's gradient (n,).

    Args:
        student: at the parameters to be measured; references are scored by teacher forcing.
        pairs: numbers of dev pairs.
        token_value: from ``log p(y_r | x, y_<r)`` (pairs, length) to the value of each token, same shape.
        inverse_temperature: see `DevStudent.reference_log_probs`.

    Raises:
        ValueError: no pairs.
    """
    if not pairs:
        raise ValueError("pairs: none; expected at least one dev pair")
    value, tokens, gradient = 0.0, 0, None
    for chunk in student.dev_chunks(pairs):
        with torch.enable_grad():
            log_probs, keep = student.reference_log_probs(chunk, inverse_temperature)
            total = token_value(log_probs).masked_fill(~keep, 0.0).sum()
            gradient = add_gradient(gradient, student, total)
        value, tokens = value + float(total.detach()), tokens + int(keep.sum())
    return value, tokens, gradient
