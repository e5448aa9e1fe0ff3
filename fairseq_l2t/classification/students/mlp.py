"""Multi-layer perceptron: pixels, hidden layers with ReLU, classifier."""

from __future__ import annotations

import math

from torch import nn

from fairseq_l2t.classification.students.network import Network

__all__ = ["DEFAULT_HIDDEN", "build_mlp"]

DEFAULT_HIDDEN = (256, 256)
"""Sizes of the hidden layers of ``mlp``: our choice; 269,322 parameters on MNIST."""


def build_mlp(*hidden: int, classes: int, image_shape: tuple[int, int, int], bias: bool = True) -> Network:
    """Return a perceptron as PyTorch initialises it.

    Args:
        hidden: sizes of the hidden layers; none: `DEFAULT_HIDDEN`.
        classes: number of classes.
        image_shape: channels, height and width; any size.
        bias: whether the classifier has one; hidden layers always do.
    """
    width = math.prod(image_shape)
    layers: list[nn.Module] = [nn.Flatten()]
    for size in hidden or DEFAULT_HIDDEN:
        layers += [nn.Linear(width, size), nn.ReLU()]
        width = size
    return Network(nn.Sequential(*layers), nn.Linear(width, classes, bias=bias))
