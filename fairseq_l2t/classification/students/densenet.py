"""Densely connected networks with bottlenecks and compression, DenseNet-BC.

Source: Huang et al., "Densely Connected Convolutional Networks", CVPR 2017, sections 3 and 4.2, without dropout.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fairseq_l2t.classification.students.batch_norm import CarriedBatchNorm2d
from fairseq_l2t.classification.students.network import Network, averaging_network, convolution, refuse_small_images

__all__ = ["DenseLayer", "build_densenet", "is_densenet_depth"]

_BLOCKS = 3
_BOTTLENECK = 4
"""Channels between the two convolutions of a layer, in multiples of the growth rate."""


class DenseLayer(nn.Module):
    """1x1 and 3x3 convolution, each after batch normalisation and ReLU, appended to the layer's input.

    Args:
        inputs: channels.
        growth: channels that are appended.
    """

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        between = _BOTTLENECK * growth
        self.grown = nn.Sequential(
            CarriedBatchNorm2d(inputs),
            nn.ReLU(),
            convolution(inputs, between, 1),
            CarriedBatchNorm2d(between),
            nn.ReLU(),
            convolution(between, growth, 3),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return (batch, inputs + growth, height, width) of ``x`` (batch, inputs, height, width)."""
        return torch.cat([x, self.grown(x)], dim=1)


def is_densenet_depth(depth: int) -> bool:
    """Return whether ``depth`` is 6n+4 with n >= 1."""
    return depth >= 10 and depth % 6 == 4


def build_densenet(
    depth: int, growth: int, *, classes: int, image_shape: tuple[int, int, int], bias: bool = True
) -> Network:
    """Return DenseNet-BC of ``depth`` layers: three blocks of (depth - 4) / 6 dense layers, two transitions.

    Args:
        depth: number of layers with weights, 6n+4.
        growth: growth rate k; the first convolution has 2k filters.
        classes: number of classes.
        image_shape: channels, height and width.
        bias: whether the classifier has one.

    Raises:
        ValueError: images smaller than 8x8.
    """
    refuse_small_images(f"densenet-bc-{depth}-{growth}", image_shape)
    width = 2 * growth
    layers: list[nn.Module] = [convolution(image_shape[0], width, 3)]
    for block in range(_BLOCKS):
        if block:
            # The transition, with the paper's compression of 0.5.
            layers += [CarriedBatchNorm2d(width), nn.ReLU(), convolution(width, width // 2, 1), nn.AvgPool2d(2)]
            width //= 2
        for _ in range((depth - 4) // 6):
            layers.append(DenseLayer(width, growth))
            width += growth
    layers += [CarriedBatchNorm2d(width), nn.ReLU()]
    return averaging_network(layers, width, classes=classes, bias=bias)
