"""The dynamic loss of a sequence student: ``-sum_r sigmoid(Phi_t[y_r] log p(y_r))``.

Source: Wu et al., NeurIPS 2018, section 4.1 gives ``-sigmoid(y' Phi_t log p)``; with a diagonal Phi, as
the paper uses for translation (section 4.2), only the entry of the target word is ever needed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["LossShape", "dynamic_loss"]


@dataclass(frozen=True)
class LossShape:
    """How the sigmoid loss enters the student's loss.

    Args:
        scale: factor of the sigmoid loss. ``4 / Phi_0`` gives it the gradient of cross-entropy where
            ``Phi_0 log p`` is small (the slope of the sigmoid at 0 is 1/4).
        cross_entropy_mix: share alpha in [0, 1] of plain cross-entropy,
            ``alpha * ce + (1 - alpha) * scale * sigmoid loss``.

    Raises:
        ValueError: a scale that is not positive and finite, or a share outside [0, 1].
    """

    scale: float = 1.0
    cross_entropy_mix: float = 0.0

    def __post_init__(self) -> None:
        if not (self.scale > 0 and math.isfinite(self.scale)):
            raise ValueError(f"--loss-scale: {self.scale}; expected a finite number above 0")
        if not 0 <= self.cross_entropy_mix <= 1:
            raise ValueError(f"--cross-entropy-mix: {self.cross_entropy_mix}; expected a number in [0, 1]")


def dynamic_loss(
    target_log_probs: Tensor,
    targets: Tensor,
    coefficients: Tensor,
    keep: Tensor,
    shape: LossShape,
) -> Tensor:
    """Return the dynamic loss summed over the kept tokens, a scalar.

    The log-probabilities of the targets are gathered by the caller, once, and the coefficients here: no
    product of vocabulary size is formed for any token.

    Args:
        target_log_probs: ``log p(y_r)``, any shape; natural logarithm.
        targets: the target entries y_r, same shape, integers below ``len(coefficients)``.
        coefficients: ``Phi_t``, (entries,); differentiable.
        keep: same shape, True for the tokens that count (not padding).
        shape: scale and cross-entropy share.
    """
    # Masked before anything is multiplied too: 0 times an infinite log p would be NaN in the gradient of Phi.
    target_log_probs = target_log_probs.masked_fill(~keep, 0.0)
    phi = coefficients.index_select(0, targets.reshape(-1)).view_as(target_log_probs)
    token_loss = shape.scale * _minus_sigmoid(phi * target_log_probs)
    if shape.cross_entropy_mix > 0:
        mix = shape.cross_entropy_mix
        token_loss = (1 - mix) * token_loss - mix * target_log_probs
    return token_loss.masked_fill(~keep, 0.0).sum()


def _minus_sigmoid(x: Tensor) -> Tensor:
    """Return ``-sigmoid(x)``, with derivatives that keep their digits where it is near -1 (negative Phi).

    PyTorch's slope is ``y (1 - y)``: in float32 nothing is left of it for y = 1 - 1e-8.
    """
    return torch.where(x > 0, torch.sigmoid(-x) - 1, -torch.sigmoid(x))
