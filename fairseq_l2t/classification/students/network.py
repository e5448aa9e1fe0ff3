"""The common form of all students: a body from images to features, and a linear classifier of features."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

__all__ = ["SMALLEST_SIDE", "Network", "averaging_network", "convolution", "he_initialise", "refuse_small_images"]

SMALLEST_SIDE = 8
"""Least pixels of the shorter side for convolutional students; the digits of scikit-learn have 8."""


class Network(nn.Module):
    """An image classifier in two parts: the large-margin softmax needs features and classifier by themselves.

    Args:
        body: images (batch, channels, height, width) to features (batch, width).
        classifier: features (batch, width) to logits (batch, classes).
    """

    def __init__(self, body: nn.Module, classifier: nn.Linear) -> None:
        super().__init__()
        self.body, self.classifier = body, classifier

    def features(self, images: Tensor) -> Tensor:
        """Return the features (batch, width) of ``images`` (batch, channels, height, width)."""
        features: Tensor = self.body(images)
        return features

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (batch, classes) of ``images`` (batch, channels, height, width)."""
        logits: Tensor = self.classifier(self.features(images))
        return logits


def averaging_network(layers: Sequence[nn.Module], channels: int, *, classes: int, bias: bool) -> Network:
    """Return ``layers``, then global average pooling and a classifier, all initialised.

    Args:
        layers: images to (batch, channels, height, width).
        channels: channels of the last of them.
        classes, bias: of the classifier. Its bias starts at 0 (He et al. 2016, Huang et al. 2017: their code).
    """
    classifier = nn.Linear(channels, classes, bias=bias)
    if bias:
        nn.init.zeros_(classifier.bias)
    network = Network(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()), classifier)
    he_initialise(network)
    return network


def convolution(inputs: int, outputs: int, side: int, stride: int = 1) -> nn.Conv2d:
    """Return a convolution with an odd ``side`` that keeps height and width at stride 1; batch norm is its bias."""
    return nn.Conv2d(inputs, outputs, side, stride=stride, padding=side // 2, bias=False)


def he_initialise(network: nn.Module) -> None:
    """Draw the convolutions of ``network`` from the global generator: normal, of variance 2 / (outputs side^2).

    He et al., "Delving Deep into Rectifiers", ICCV 2015, equation (14). Biases become 0.
    """
    for part in network.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def refuse_small_images(student: str, image_shape: tuple[int, int, int]) -> None:
    """Refuse images (channels, height, width) that shrink to nothing on their way through a convolutional student.

    Raises:
        ValueError: a side below `SMALLEST_SIDE`.
    """
    _, height, width = image_shape
    if min(height, width) < SMALLEST_SIDE:
        raise ValueError(
            f"--student: {student} with images of {height}x{width}; expected images of at least "
            f"{SMALLEST_SIDE}x{SMALLEST_SIDE}, or an mlp"
        )
