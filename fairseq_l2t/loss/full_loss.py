"""The dynamic loss of a classifier: ``-sigmoid(y' Phi_t log p)`` with a full Phi.

Source: Wu et al., NeurIPS 2018, section 4.1. The row of Phi_t that belongs to the label weighs the log-probabilities of
all classes: on the diagonal how much the label counts, beside it what is made of the others.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fairseq_l2t.loss.dynamic_loss import LossShape, minus_sigmoid

__all__ = ["full_dynamic_loss"]


def full_dynamic_loss(log_probs: Tensor, labels: Tensor, coefficients: Tensor, shape: LossShape) -> Tensor:
    """Return the loss summed over the examples, a scalar.

    Args:
        log_probs: ``log p`` (examples, classes), natural logarithm. -inf, which `torch.log_softmax` makes of scores
            that lie further apart than the type reaches, counts as the negative root of the type's largest number.
        labels: (examples,), integers below the number of classes.
        coefficients: ``Phi_t`` row after row, (classes * classes,); differentiable.
        shape: scale and share of cross-entropy; its level is ``token``, an example being a sentence of one.

    Raises:
        ValueError: coefficients of another number of classes, or another level.
    """
    classes = log_probs.shape[-1]
    if coefficients.numel() != classes * classes:
        raise ValueError(f"coefficients: {coefficients.numel()}; expected {classes * classes} for {classes} classes")
    if shape.level != "token":
        raise ValueError(f"--loss-level: {shape.level}; expected token, an image has no sentences")
    rows = coefficients.view(classes, classes).index_select(0, labels)
    # 0 times -inf is NaN. The root, not the largest number itself: products with Phi of both signs must not add up to
    # inf - inf, nor second derivatives, where log p is squared, to 0 times inf. No gradient passes to what is clamped.
    bounded = log_probs.clamp(min=-(torch.finfo(log_probs.dtype).max ** 0.5))
    losses = shape.scale * minus_sigmoid((rows * bounded).sum(-1))
    if shape.cross_entropy_mix > 0:
        mix = shape.cross_entropy_mix
        losses = (1 - mix) * losses - mix * log_probs.gather(-1, labels.unsqueeze(-1)).squeeze(-1)
    return losses.sum()
