"""Convergence of independent estimates of a vector to its expected value."""

from __future__ import annotations

from statistics import NormalDist

import torch
from torch import Tensor

PROJECTIONS = 5
CONFIDENCE = 0.99


def outside(estimates: Tensor, expected: Tensor) -> float:
    """Return the distance of ``expected`` (n,) from the mean of ``estimates`` (k, n), in half widths of its interval.

    At most 1 means: within the 99 % confidence interval that the sample covariance gives, along fixed random
    directions and that of ``expected`` itself, each of which gets its share of the 1 % (Bonferroni).
    """
    generator = torch.Generator().manual_seed(11)
    directions = torch.randn(PROJECTIONS, expected.numel(), generator=generator, dtype=expected.dtype)
    if expected.numel() == 1:
        directions = torch.ones(1, 1, dtype=expected.dtype)
    elif bool(expected.any()):
        directions = torch.cat([directions, expected.unsqueeze(0)])
    quantile = NormalDist().inv_cdf(1 - (1 - CONFIDENCE) / 2 / len(directions))
    along = estimates @ directions.T
    half_widths = quantile * along.std(0) / len(estimates) ** 0.5
    return float(((along.mean(0) - directions @ expected).abs() / half_widths).max())


def shrinkage(estimates: Tensor, expected: Tensor, fewer: int, more: int) -> float:
    """Return the error of a mean of ``fewer`` estimates over that of ``more``: near ``sqrt(more / fewer)``.

    Both errors are root mean squares over as many disjoint blocks of ``estimates`` (k, n) as there are.
    """
    errors = []
    for size in (fewer, more):
        blocks = estimates[: len(estimates) // size * size].unflatten(0, (-1, size)).mean(1)
        errors.append((blocks - expected).square().sum(1).mean().sqrt())
    return float(errors[0] / errors[1])
