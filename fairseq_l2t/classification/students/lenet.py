"""LeNet as Caffe trains it on MNIST (``examples/mnist/lenet_train_test.prototxt``).

After LeCun et al., "Gradient-Based Learning Applied to Document Recognition", 1998, with more filters, max pooling, and
one ReLU, after the fully connected layer. 431,080 parameters with images of 1x28x28 and 10 classes.
"""

from __future__ import annotations

from torch import nn

from fairseq_l2t.classification.students.network import Network, he_initialise, refuse_small_images

__all__ = ["build_lenet"]

_FILTERS = (20, 50)
_HIDDEN = 500
_FULL_SIDE = 28
"""Pixels of the sides of Caffe's images."""


def build_lenet(*, classes: int, image_shape: tuple[int, int, int], bias: bool = True) -> Network:
    """Return the network; convolutions initialised by `he_initialise`, linear layers by PyTorch.

    Images with a side below 28 would shrink to (nearly) nothing under 5x5 kernels. For them both convolutions are 3x3
    and padded, so that only the two poolings shrink the image, to a quarter of its sides.

    Args:
        classes: number of classes.
        image_shape: channels, height and width.
        bias: whether the classifier has one; the layers before always do.

    Raises:
        ValueError: images smaller than 8x8.
    """
    refuse_small_images("lenet", image_shape)
    channels, height, width = image_shape
    side, padding = (5, 0) if min(height, width) >= _FULL_SIDE else (3, 1)
    layers = []
    for filters in _FILTERS:
        layers += [nn.Conv2d(channels, filters, side, padding=padding), nn.MaxPool2d(2)]
        channels = filters
        height, width = ((pixels + 2 * padding - side + 1) // 2 for pixels in (height, width))
    layers += [nn.Flatten(), nn.Linear(channels * height * width, _HIDDEN), nn.ReLU()]
    network = Network(nn.Sequential(*layers), nn.Linear(_HIDDEN, classes, bias=bias))
    he_initialise(network)
    return network
