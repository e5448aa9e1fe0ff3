"""Different update rules for different parts of the flat vector.

The running statistics of batch normalisation are part of a student's parameters here: the measure on dev depends on
them, and they depend on the weights of all earlier updates. Their update, ``r' = r - c (r - s)`` with s the statistic
of the batch, is plain SGD on ``|r - s|^2 / 2``, independent of the rule of the weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from fairseq_l2t.unroll.update_rules import Buffers, StepSize, UpdateRule

__all__ = ["PiecewiseRule", "RunningAverage", "pieces"]


@dataclass(frozen=True)
class RunningAverage:
    """``r' = r - share g``: an exponential moving average, where the gradient g is r minus the newest value.

    Args:
        share: weight of the newest value, in (0, 1]; PyTorch's ``momentum`` of batch normalisation.

    The rule has no optimizer state; buffers of the other parts' rules pass through.
    """

    share: float
    buffer_count = 0

    def apply(self, omega: Tensor, buffers: Buffers, gradient: Tensor, size: StepSize) -> tuple[Tensor, Buffers]:
        """See `UpdateRule.apply`; the learning rate is not used."""
        return omega.sub(gradient, alpha=self.share), buffers

    def adjoint(
        self, omega: Tensor, buffers: Buffers, gradient: Tensor, size: StepSize, omega_bar: Tensor, buffers_bar: Buffers
    ) -> tuple[Tensor, Buffers, Tensor]:
        """See `UpdateRule.adjoint`."""
        return omega_bar, buffers_bar, omega_bar * -self.share


@dataclass(frozen=True)
class PiecewiseRule:
    """Rules for consecutive parts of the flat vector.

    Args:
        parts: (number of elements, rule) of each part, in order; together the parts are the whole vector.
    """

    parts: tuple[tuple[int, UpdateRule], ...]

    @property
    def buffer_count(self) -> int:
        """Number of vectors of optimizer state: the maximum over the rules."""
        return max(rule.buffer_count for _, rule in self.parts)

    def apply(self, omega: Tensor, buffers: Buffers, gradient: Tensor, size: StepSize) -> tuple[Tensor, Buffers]:
        """See `UpdateRule.apply`."""
        found = [
            rule.apply(omega[part], _of(buffers, part), gradient[part], size) for part, rule in pieces(self, len(omega))
        ]
        moved, moments = zip(*found, strict=True)
        return torch.cat(moved), _joined(moments)

    def adjoint(
        self, omega: Tensor, buffers: Buffers, gradient: Tensor, size: StepSize, omega_bar: Tensor, buffers_bar: Buffers
    ) -> tuple[Tensor, Buffers, Tensor]:
        """See `UpdateRule.adjoint`."""
        found = [
            rule.adjoint(omega[part], _of(buffers, part), gradient[part], size, omega_bar[part], _of(buffers_bar, part))
            for part, rule in pieces(self, len(omega))
        ]
        moved, moments, shares = zip(*found, strict=True)
        return torch.cat(moved), _joined(moments), torch.cat(shares)


def pieces(rule: UpdateRule, length: int) -> Iterator[tuple[slice, UpdateRule]]:
    """Yield the parts of a vector of ``length`` elements, each with its elementwise rule.

    Raises:
        ValueError: a `PiecewiseRule` for vectors of another length.
    """
    parts = rule.parts if isinstance(rule, PiecewiseRule) else ((length, rule),)
    if sum(size for size, _ in parts) != length:
        raise ValueError(f"update rules for {sum(size for size, _ in parts)} elements; this vector has {length}")
    first = 0
    for size, own in parts:
        yield slice(first, first + size), own
        first += size


def _of(buffers: Buffers, part: slice) -> Buffers:
    return tuple(buffer[part] for buffer in buffers)


def _joined(moments: tuple[Buffers, ...]) -> Buffers:
    return tuple(torch.cat(parts) for parts in zip(*moments, strict=True))
