"""Wide residual networks.

Source: Zagoruyko and Komodakis, "Wide Residual Networks", BMVC 2016, Table 1: 6n+4 layers, batch normalisation and ReLU
before each convolution, blocks of two 3x3 convolutions, no dropout.
"""

from __future__ import annotations

from torch import Tensor, nn

from fairseq_l2t.classification.students.batch_norm import CarriedBatchNorm2d
from fairseq_l2t.classification.students.network import Network, averaging_network, convolution, refuse_small_images

__all__ = ["WideBlock", "build_wide_resnet", "is_wide_resnet_depth"]

_FIRST_FILTERS = 16
_FILTERS = (16, 32, 64)
"""Filters of the three stages at widening factor 1."""


class WideBlock(nn.Module):
    """Batch normalisation, ReLU, 3x3 convolution, twice, added to the block's input.

    Where the number of channels changes, the shortcut is a 1x1 convolution of the *normalised* input, as in the
    authors' code; elsewhere it is the input itself.

    Args:
        inputs, outputs: channels.
        stride: of the first convolution; 1 where inputs equal outputs.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.activation = nn.Sequential(CarriedBatchNorm2d(inputs), nn.ReLU())
        self.residual = nn.Sequential(
            convolution(inputs, outputs, 3, stride),
            CarriedBatchNorm2d(outputs),
            nn.ReLU(),
            convolution(outputs, outputs, 3),
        )
        self.shortcut = None if inputs == outputs else convolution(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Return (batch, outputs, height / stride, width / stride), rounded up, of ``x`` (batch, inputs, ...)."""
        activated = self.activation(x)
        shortcut: Tensor = x if self.shortcut is None else self.shortcut(activated)
        residual: Tensor = self.residual(activated)
        return residual + shortcut


def is_wide_resnet_depth(depth: int) -> bool:
    """Return whether ``depth`` is 6n+4 with n >= 1."""
    return depth >= 10 and depth % 6 == 4


def build_wide_resnet(
    depth: int, widening: int, *, classes: int, image_shape: tuple[int, int, int], bias: bool = True
) -> Network:
    """Return WRN-``depth``-``widening``.

    Args:
        depth: number of layers with weights, 6n+4; the shortcuts of stages count as the paper counts them.
        widening: factor k of the number of filters.
        classes: number of classes.
        image_shape: channels, height and width.
        bias: whether the classifier has one.

    Raises:
        ValueError: images smaller than 8x8.
    """
    refuse_small_images(f"wide-resnet-{depth}-{widening}", image_shape)
    width = _FIRST_FILTERS
    layers: list[nn.Module] = [convolution(image_shape[0], width, 3)]
    for stage, filters in enumerate(_FILTERS):
        for block in range((depth - 4) // 6):
            layers.append(WideBlock(width, filters * widening, stride=2 if stage and not block else 1))
            width = filters * widening
    layers += [CarriedBatchNorm2d(width), nn.ReLU()]
    return averaging_network(layers, width, classes=classes, bias=bias)
