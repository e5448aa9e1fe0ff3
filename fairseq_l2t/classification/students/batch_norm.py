"""Batch normalisation whose running statistics are parameters, carried and replayed with the weights.

Source: Ioffe and Szegedy, "Batch Normalization", ICML 2015. As buffers that every forward pass writes in place, running
statistics would be unknown to the unroll: a replayed update would change them again, and the hypergradient of a
measure in eval mode would leave out their dependence on the weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fairseq_l2t.kernels.twice_differentiable import ScaledGradient

__all__ = ["BatchStatistics", "CarriedBatchNorm2d", "collect_statistics", "running_loss", "statistic_names"]

_STATISTICS = ("running_mean", "running_var")


class BatchStatistics(NamedTuple):
    """Statistics of one batch in one layer, differentiable: mean (channels,) and unbiased variance (channels,)."""

    layer: CarriedBatchNorm2d
    mean: Tensor
    variance: Tensor


_COLLECTORS: list[list[BatchStatistics]] = []
"""Open collectors, the innermost last. A module global, because autograd's device threads see no context variables."""


class CarriedBatchNorm2d(nn.Module):
    """Batch normalisation of (batch, channels, height, width) over all but the channels.

    In train mode it normalises by the statistics of the batch, changes nothing, and hands them to the innermost open
    `collect_statistics`. In eval mode it normalises by ``running_mean`` and ``running_var``, and is differentiable
    in both. They are parameters, but not weights: they must never receive weight decay or momentum. Their only gradient
    is that of `running_loss`, applied by plain SGD with learning rate ``momentum``.

    Args:
        channels: number of channels.
        momentum: weight of the new batch in the running averages; default as in `torch.nn.BatchNorm2d`.
        eps: added to the variance; default as in `torch.nn.BatchNorm2d`.

    Raises:
        ValueError: in train mode, a batch with one value per channel, which has no variance.
    """

    def __init__(self, channels: int, *, momentum: float = 0.1, eps: float = 1e-5) -> None:
        super().__init__()
        self.momentum, self.eps = momentum, eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.running_mean = nn.Parameter(torch.zeros(channels))
        self.running_var = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x`` (batch, channels, height, width) normalised, scaled and shifted."""
        if not self.training:
            # Composed: torch's own node gives its running statistics no gradient.
            scale = self.weight * torch.rsqrt(self.running_var + self.eps)
            shift = self.bias - self.running_mean * scale
            return x * scale[:, None, None] + shift[:, None, None]
        if _COLLECTORS:
            variance, mean = torch.var_mean(x, dim=(0, 2, 3), correction=1)
            _COLLECTORS[-1].append(BatchStatistics(self, mean, variance))
        return nn.functional.batch_norm(
            x, None, None, self.weight, self.bias, training=True, momentum=0.0, eps=self.eps
        )

    def extra_repr(self) -> str:
        """Return the numbers `repr` shows."""
        return f"{self.weight.numel()}, momentum={self.momentum}, eps={self.eps}"


@contextmanager
def collect_statistics() -> Iterator[list[BatchStatistics]]:
    """Yield the list to which every batch normalisation in train mode appends, in the order of the forward pass.

    Contexts nest; only the innermost collects.
    """
    before = len(_COLLECTORS)
    collected: list[BatchStatistics] = []
    _COLLECTORS.append(collected)
    try:
        yield collected
    finally:
        del _COLLECTORS[before:]


def statistic_names(model: nn.Module) -> frozenset[str]:
    """Return the names of the parameters of ``model`` that are running statistics: no weight decay for them."""
    layers = [path for path, part in model.named_modules() if isinstance(part, CarriedBatchNorm2d)]
    return frozenset(f"{path}.{name}" if path else name for path in layers for name in _STATISTICS)


def running_loss(collected: Sequence[BatchStatistics]) -> Tensor:
    """Return half the squared distance of running statistics r from those of the batch, s; a scalar.

    Its gradient is ``r - s`` for r and 0 for the weights, so that a step of plain SGD with learning rate m is the
    running average ``r' = (1 - m) r + m s``. Under `kernels.twice_differentiable.outer_gradient`, double backward
    takes the derivative of s to the weights. A layer that was called twice takes both steps from the same r.

    Args:
        collected: the list of `collect_statistics` after one forward pass; the loss of an empty list is 0.
    """
    distances = [
        0.5 * (running - _without_first_derivative(seen)).square().sum()
        for layer, mean, variance in collected
        for running, seen in ((layer.running_mean, mean), (layer.running_var, variance))
    ]
    return torch.stack(distances).sum() if distances else torch.zeros(())


def _without_first_derivative(seen: Tensor) -> Tensor:
    """Return ``seen`` unchanged; the inner gradient does not pass, the outer one does."""
    passed: Tensor = ScaledGradient.apply(seen, 0.0)  # type: ignore[no-untyped-call]  # torch declares no types
    return passed
