"""Residual networks for small images.

Source: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, section 4.2: 6n+2 layers, shortcuts
without parameters (option A).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fairseq_l2t.classification.students.batch_norm import CarriedBatchNorm2d
from fairseq_l2t.classification.students.network import Network, averaging_network, convolution, refuse_small_images

__all__ = ["ResidualBlock", "build_resnet", "is_resnet_depth"]

_FILTERS = (16, 32, 64)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch normalisation, added to the block's input.

    Args:
        inputs, outputs: channels; outputs >= inputs.
        stride: of the first convolution.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride, self.added_channels = stride, outputs - inputs
        self.residual = nn.Sequential(
            convolution(inputs, outputs, 3, stride),
            CarriedBatchNorm2d(outputs),
            nn.ReLU(),
            convolution(outputs, outputs, 3),
            CarriedBatchNorm2d(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return (batch, outputs, height / stride, width / stride), rounded up, of ``x`` (batch, inputs, ...)."""
        # Option A: every stride-th pixel, and zeros for the channels that are new.
        shortcut = x[:, :, :: self.stride, :: self.stride]
        if self.added_channels:
            shortcut = nn.functional.pad(shortcut, (0, 0, 0, 0, 0, self.added_channels))
        return torch.relu(self.residual(x) + shortcut)


def is_resnet_depth(depth: int) -> bool:
    """Return whether ``depth`` is 6n+2 with n >= 1."""
    return depth >= 8 and depth % 6 == 2


def build_resnet(depth: int, *, classes: int, image_shape: tuple[int, int, int], bias: bool = True) -> Network:
    """Return ResNet-``depth``: a convolution, three stages of n blocks of 16, 32 and 64 filters, the mean over pixels.

    Args:
        depth: number of layers with weights, 6n+2.
        classes: number of classes.
        image_shape: channels, height and width.
        bias: whether the classifier has one.

    Raises:
        ValueError: images smaller than 8x8.
    """
    refuse_small_images(f"resnet-{depth}", image_shape)
    width = _FILTERS[0]
    layers = [convolution(image_shape[0], width, 3), CarriedBatchNorm2d(width), nn.ReLU()]
    for filters in _FILTERS:
        for _ in range((depth - 2) // 6):
            layers.append(ResidualBlock(width, filters, stride=1 if filters == width else 2))
            width = filters
    return averaging_network(layers, width, classes=classes, bias=bias)
