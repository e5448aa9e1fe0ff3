"""The context in which a fairseq model's forward pass is exact and repeatable."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor

from fairseq_l2t.checks.float64 import KeepFloat64
from fairseq_l2t.plugin.student.second_derivatives import fairseq_twice_differentiable

__all__ = ["forward_precision"]


@contextmanager
def forward_precision(parameters: Tensor) -> Iterator[None]:
    """Keep float64 if the parameters have it, and on a GPU use the attention kernel of the backward pass.

    Args:
        parameters: the flat vector (n,) of the model; its dtype and device select the settings.
    """
    with ExitStack() as stack:
        if parameters.dtype == torch.float64:
            stack.enter_context(KeepFloat64())
        if parameters.is_cuda:
            # Another kernel would draw another dropout mask from the same seed.
            stack.enter_context(fairseq_twice_differentiable())
        yield
