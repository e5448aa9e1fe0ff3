"""The dynamic loss of a classifier: ``-sigmoid(y' Phi_t log p)`` with a full Phi.

Source: Wu et al., NeurIPS 2018, section 4.1. The row of Phi_t for the label holds the weights of the log-probabilities
of all classes: on the diagonal that of the label, off the diagonal those of the other classes.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fairseq_l2t.loss.dynamic_loss import LossShape, minus_sigmoid

__all__ = ["full_dynamic_loss"]


def full_dynamic_loss(log_probs: Tensor, labels: Tensor, coefficients: Tensor, shape: LossShape) -> Tensor:
    """Return the loss summed over the examples, a scalar.

    Args:
        log_probs: ``log p`` (examples, classes), natural logarithm. -inf, the result of `torch.log_softmax` for scores
            with too large a difference for the dtype, counts as minus the square root of the dtype's maximum.
        labels: (examples,), integers below the number of classes.
        coefficients: ``Phi_t``, row after row, (classes * classes,); differentiable.
        shape: scale and share of cross-entropy; its level is ``token``.

    Raises:
        ValueError: coefficients for another number of classes, or another level.
    """
    classes = log_probs.shape[-1]
    if coefficients.numel() != classes * classes:
        raise ValueError(f"coefficients: {coefficients.numel()}; expected {classes * classes} for {classes} classes")
    if shape.level != "token":
        raise ValueError(f"--loss-level: {shape.level}; expected token, an image has no sentences")
    rows = coefficients.view(classes, classes).index_select(0, labels)
    # 0 times -inf is NaN. The root and not the maximum itself: sums of products with Phi of both signs must not become
    # inf - inf, nor second derivatives, where log p is squared, 0 times inf. Clamped elements get no gradient.
    bounded = log_probs.clamp(min=-(torch.finfo(log_probs.dtype).max ** 0.5))
    losses = shape.scale * minus_sigmoid((rows * bounded).sum(-1))
    if shape.cross_entropy_mix > 0:
        mix = shape.cross_entropy_mix
        losses = (1 - mix) * losses - mix * log_probs.gather(-1, labels.unsqueeze(-1)).squeeze(-1)
    return losses.sum()
