"""Log-probabilities of the target words only, with gradient and second gradient in few passes over the vocabulary.

With p the softmax of the logits z, y the targets and w the cotangent of ``log p_y``, the gradient is
``g = w (e_y - p)``. With v the cotangent of g, and ``m = p . v``, the second gradient is

    for w:  v_y - m        for z:  -w p (v - m).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["target_log_probs"]

CHUNK_ELEMENTS = 1 << 16
"""Elements of an array per chunk; each chunk goes through all passes before the next. 256 KiB of float32 fit in a
cache."""


class _TargetLogProbs(torch.autograd.Function):
    """See `target_log_probs`."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        probabilities = torch.softmax(logits, -1)
        largest = logits.amax(-1, keepdim=True)
        # The largest probability is the inverse of the sum in softmax. The difference comes first, as in log-softmax:
        # a sum with a large logit would lose the digits that a large Phi needs.
        inverse = probabilities.amax(-1, keepdim=True)
        ctx.save_for_backward(probabilities, logits, targets)
        return (logits.gather(-1, targets.unsqueeze(-1)) - largest).add_(inverse.log()).squeeze(-1)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, None]:
        probabilities, logits, targets = ctx.saved_tensors
        return _target_gradient(probabilities, cotangent, logits, targets), None


class _TargetGradient(torch.autograd.Function):
    """The gradient of `_TargetLogProbs` as a function of cotangent and logits."""

    @staticmethod
    def forward(ctx: Any, probabilities: Tensor, cotangent: Tensor, logits: Tensor, targets: Tensor) -> Tensor:
        ctx.save_for_backward(probabilities, cotangent, targets)
        column = cotangent.unsqueeze(-1)
        return (probabilities * -column).scatter_add_(-1, targets.unsqueeze(-1), column)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, directions: Tensor) -> tuple[Tensor | None, ...]:
        probabilities, cotangent, targets = ctx.saved_tensors
        words, shape = directions.shape[-1], directions.shape
        directions, probabilities = directions.reshape(-1, words), probabilities.view(-1, words)
        weights, found = -cotangent.reshape(-1, 1), torch.empty_like(probabilities)
        means = probabilities.new_empty(len(found), 1)
        rows = max(1, CHUNK_ELEMENTS // words)
        for parts in zip(
            *(torch.split(a, rows) for a in (directions, probabilities, weights, found, means)), strict=True
        ):
            direction, probability, weight, part, mean = parts
            torch.mul(direction, probability, out=part)
            torch.sum(part, -1, keepdim=True, out=mean)
            part.addcmul_(probability, mean, value=-1).mul_(weight)
        of_targets = directions.gather(-1, targets.reshape(-1, 1)) - means
        return None, of_targets.view(cotangent.shape), found.view(shape), None


_target_log_probs: Callable[[Tensor, Tensor], Tensor] = _TargetLogProbs.apply
_target_gradient: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor] = _TargetGradient.apply


def target_log_probs(logits: Tensor, targets: Tensor) -> Tensor:
    """Return ``log p(y)`` (...) for ``logits`` (..., vocabulary) and ``targets`` (...); natural logarithm.

    The result is twice differentiable in the logits, not three times.
    """
    return _target_log_probs(logits, targets)
