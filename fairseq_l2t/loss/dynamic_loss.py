"""The dynamic loss of a sequence student: ``-sum_r sigmoid(Phi_t[y_r] log p(y_r))``.

Source: Wu et al., NeurIPS 2018, section 4.1 gives ``-sigmoid(y' Phi_t log p)``. A diagonal Phi, as in the paper's
translation experiments (section 4.2), uses only the entry of the target word.

The sentence level is this project's own: one sigmoid of the mean of ``Phi_t[y_r] log p(y_r)`` over the n tokens of
a sentence, times n. The slope of a sigmoid is small if its argument is far below 0. Here all tokens of a sentence
share one slope, so that the whole sentence decides whether a pair counts as a wrong translation.

A smoothed Phi has one additional coefficient, psi: ``Phi_t[y_r] log p(y_r) + psi_t mean_w log p(w)``, the mean over
all words. It is the paper's full Phi with one number for all words but the target, at the cost of a diagonal one. With
a linear function in place of the sigmoid the loss would be cross-entropy with label smoothing (Szegedy et al., CVPR
2016).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["LARGEST_SCALE", "LOSS_LEVELS", "LossShape", "dynamic_loss"]

LARGEST_SCALE = 1e7
"""Largest factor of the sigmoid loss: a sum over a million tokens stays finite in float32, and so do its squares in
an optimizer."""

LOSS_LEVELS = ("token", "sentence")
"""Granularity of the sigmoid: one per token or one per sentence."""


@dataclass(frozen=True)
class LossShape:
    """Scale, cross-entropy share and level of the student's loss.

    Args:
        scale: factor of the sigmoid loss. With ``4 / Phi_0`` its gradient equals that of cross-entropy where
            ``Phi_0 log p`` is small (the slope of the sigmoid at 0 is 1/4).
        cross_entropy_mix: share alpha in [0, 1] of plain cross-entropy,
            ``alpha * ce + (1 - alpha) * scale * sigmoid loss``.
        level: one of `LOSS_LEVELS`: one sigmoid per token (as in the paper), or per sentence.

    Raises:
        ValueError: a scale outside (0, `LARGEST_SCALE`], a share outside [0, 1], or an unknown level.
    """

    scale: float = 1.0
    cross_entropy_mix: float = 0.0
    level: str = "token"

    def __post_init__(self) -> None:
        if not 0 < self.scale <= LARGEST_SCALE:
            raise ValueError(f"--loss-scale: {self.scale}; expected a number above 0 and at most {LARGEST_SCALE:.0f}")
        if not 0 <= self.cross_entropy_mix <= 1:
            raise ValueError(f"--cross-entropy-mix: {self.cross_entropy_mix}; expected a number in [0, 1]")
        if self.level not in LOSS_LEVELS:
            raise ValueError(f"--loss-level: {self.level!r}; expected {' or '.join(LOSS_LEVELS)}")


def dynamic_loss(
    target_log_probs: Tensor,
    targets: Tensor,
    coefficients: Tensor,
    keep: Tensor,
    shape: LossShape,
    mean_log_probs: Tensor | None = None,
) -> Tensor:
    """Return the dynamic loss summed over the kept tokens, a scalar.

    Source: Wu et al., NeurIPS 2018, section 4.1. The caller gathers the log-probabilities of the targets and this
    function gathers their coefficients, so that no token needs a product of vocabulary size.

    Args:
        target_log_probs: ``log p(y_r)`` (..., length), natural logarithm; the last dimension is a sentence.
        targets: the target entries y_r (..., length), integers below ``entries``.
        coefficients: ``Phi_t`` (entries,), or smoothed (entries + 1,) with psi last; differentiable.
        keep: (..., length), True for tokens that count, False for padding.
        shape: scale, cross-entropy share and level.
        mean_log_probs: mean of ``log p`` over all entries (..., length) for smoothed coefficients; None for diagonal.

    Example:
        >>> import torch
        >>> from fairseq_l2t.core import LossShape, dynamic_loss
        >>> targets = torch.tensor([[2, 0]])
        >>> log_probs = torch.tensor([[0.5, 0.25]]).log()
        >>> loss = dynamic_loss(log_probs, targets, torch.full((3,), 0.1), targets != 0, LossShape(scale=40.0))
        >>> round(float(loss), 3)
        -19.307
    """
    # Masked before the multiplication too: 0 times an infinite log p would be NaN in the gradient of Phi.
    target_log_probs = target_log_probs.masked_fill(~keep, 0.0)
    phi = coefficients.index_select(0, targets.reshape(-1)).view_as(target_log_probs)
    products = phi * target_log_probs
    if mean_log_probs is not None:
        products = products + coefficients[-1] * mean_log_probs.masked_fill(~keep, 0.0)
    if shape.level == "sentence":
        products = (products.sum(-1, keepdim=True) / keep.sum(-1, keepdim=True).clamp(min=1)).expand_as(products)
    token_loss = shape.scale * minus_sigmoid(products)
    if shape.cross_entropy_mix > 0:
        mix = shape.cross_entropy_mix
        token_loss = (1 - mix) * token_loss - mix * target_log_probs
    return token_loss.masked_fill(~keep, 0.0).sum()


def minus_sigmoid(x: Tensor) -> Tensor:
    """Return ``-sigmoid(x)``, with accurate derivatives near -1 (negative Phi).

    PyTorch's slope is ``y (1 - y)``, which is 0 in float32 for y = 1 - 1e-8.
    """
    return torch.where(x > 0, torch.sigmoid(-x) - 1, -torch.sigmoid(x))
