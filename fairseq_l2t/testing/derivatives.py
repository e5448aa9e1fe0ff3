"""Value, gradient and second gradient of a function: compares a hand-written node with PyTorch's composition."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def normal(*size: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return a random tensor of shape ``size`` that requires a gradient."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(size, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()


def three_derivatives(function: Callable[..., Sequence[Tensor]], inputs: Sequence[Tensor]) -> list[list[Tensor]]:
    """Return the outputs, their gradient along random cotangents, and the gradient of a random projection of that.

    The last is with respect to inputs and cotangents. A tensor that does not depend on an input gives zeros.
    """
    outputs = list(function(*inputs))
    cotangents = [normal(*output.shape, seed=100 + k, dtype=output.dtype) for k, output in enumerate(outputs)]
    first = torch.autograd.grad(outputs, inputs, cotangents, create_graph=True, materialize_grads=True)
    projections = [
        (part * normal(*part.shape, seed=200 + k, dtype=part.dtype).detach()).sum() for k, part in enumerate(first)
    ]
    second = torch.autograd.grad(
        sum(projections[1:], start=projections[0]), [*inputs, *cotangents], materialize_grads=True
    )
    return [[part.detach() for part in parts] for parts in (outputs, first, second)]


def largest_error(found: list[list[Tensor]], expected: list[list[Tensor]]) -> float:
    """Return the largest relative error over all tensors of `three_derivatives`; the norm where 0 is expected."""
    errors = []
    for some, others in zip(found, expected, strict=True):
        for one, other in zip(some, others, strict=True):
            scale = float(other.norm()) or 1.0
            errors.append(float((one.double() - other.double()).norm()) / scale)
    return max(errors)
