"""Update rules and clipping written out again with differentiable operations, for plain autograd through an unroll.

Nothing of `unroll.update_rules` is called: plain autograd is an independent second computation of a hypergradient.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from fairseq_l2t.unroll.update_rules import NAG, SGD, Adagrad, Adam, StepSize, UpdateRule

__all__ = ["differentiable_clipping", "differentiable_rule", "relative_error"]


def differentiable_rule(
    rule: UpdateRule, omega: Tensor, buffers: Sequence[Tensor], gradient: Tensor, size: StepSize
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Return (omega', buffers') by the definitions in torch's and fairseq's documentation.

    Args:
        rule: an SGD, NAG, Adam or Adagrad of `unroll.update_rules`; only its settings are read.
        omega, gradient: (n,).
        buffers: optimizer state, each (n,).
        size: learning rate and number of the update.

    Raises:
        TypeError: another rule.
    """
    if isinstance(rule, SGD):
        velocity = rule.momentum * buffers[0] + gradient + rule.weight_decay * omega
        return omega - size.lr * velocity, (velocity,)
    if isinstance(rule, NAG):
        ratio = size.lr / size.previous_lr if size.previous_lr > 0 else size.lr
        velocity = rule.momentum * ratio * buffers[0] - size.lr * gradient
        decayed = omega - size.lr * rule.weight_decay * omega
        return decayed + rule.momentum * velocity - size.lr * gradient, (velocity,)
    if isinstance(rule, Adam):
        mean = rule.beta1 * buffers[0] + (1 - rule.beta1) * gradient
        square = rule.beta2 * buffers[1] + (1 - rule.beta2) * gradient**2
        # sqrt has no finite slope at 0; there the mean is 0 as well and the update is m' / eps.
        seen = square > 0
        root = torch.where(seen, torch.where(seen, square, torch.ones_like(square)).sqrt(), 0.0)
        step = size.lr * math.sqrt(1 - rule.beta2**size.count) / (1 - rule.beta1**size.count)
        return omega - size.lr * rule.weight_decay * omega - step * mean / (root + rule.eps), (mean, square)
    if isinstance(rule, Adagrad):
        direction = gradient + rule.weight_decay * omega
        square = buffers[0] + direction**2
        seen = square > 0
        root = torch.where(seen, torch.where(seen, square, torch.ones_like(square)).sqrt(), 0.0)
        return omega - size.lr * direction / (root + rule.eps), (square,)
    raise TypeError(f"no differentiable form of {rule}")


def differentiable_clipping(gradient: Tensor, max_norm: float) -> Tensor:
    """Return the gradient scaled to a norm of at most ``max_norm``; 0: unchanged."""
    norm: Tensor = gradient.norm()
    if max_norm == 0 or float(norm.detach()) + 1e-6 <= max_norm:
        return gradient
    return gradient * (max_norm / (norm + 1e-6))


def relative_error(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    """Return the largest error of a tensor, each relative to the norm of its tensor in ``theirs``."""
    # torch's max returns NaN if one is NaN, Python's need not.
    return float(torch.stack([(ours[name] - part).norm() / part.norm() for name, part in theirs.items()]).max())
