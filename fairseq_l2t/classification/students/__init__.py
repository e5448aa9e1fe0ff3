"""The networks that classify images, by name.

To add one: write its module beside the others, add its family to ``_FAMILIES`` and its own classes to `VERIFIED`, and
add rows to ``tests/classification/students``, which compare its second derivatives with finite differences.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from fairseq_l2t.classification.students.batch_norm import CarriedBatchNorm2d
from fairseq_l2t.classification.students.densenet import DenseLayer, build_densenet, is_densenet_depth
from fairseq_l2t.classification.students.lenet import build_lenet
from fairseq_l2t.classification.students.mlp import build_mlp
from fairseq_l2t.classification.students.network import Network
from fairseq_l2t.classification.students.resnet import ResidualBlock, build_resnet, is_resnet_depth
from fairseq_l2t.classification.students.wide_resnet import WideBlock, build_wide_resnet, is_wide_resnet_depth

__all__ = ["STUDENT_FORMS", "VERIFIED", "Network", "StudentNameError", "build_student", "refuse_student_name"]

VERIFIED: frozenset[str] = frozenset(
    f"{part.__module__}.{part.__qualname__}"
    for part in (CarriedBatchNorm2d, DenseLayer, Network, ResidualBlock, WideBlock)
) | {
    "torch.nn.modules.flatten.Flatten",
    "torch.nn.modules.pooling.AdaptiveAvgPool2d",
    "torch.nn.modules.pooling.AvgPool2d",
    "torch.nn.modules.pooling.MaxPool2d",
}
"""Classes whose double backward is tested in tests/classification/students against float64 finite differences;
`kernels.twice_differentiable.refuse_unverified` accepts them in addition to its own."""


class StudentNameError(ValueError):
    """An unknown name of a network (``--student``); the message lists the forms of the names."""


@dataclass(frozen=True)
class _Family:
    """Networks whose names differ only in their numbers.

    Args:
        form: form of a name, for messages.
        takes: whether the numbers of a name define a network.
        build: builds it from the numbers, with classes, image_shape and bias by name.
    """

    form: str
    takes: Callable[[tuple[int, ...]], bool]
    build: Callable[..., Network]


_FAMILIES = {
    "mlp": _Family("mlp or mlp-H1-H2-... (hidden sizes)", lambda numbers: True, build_mlp),
    "lenet": _Family("lenet", lambda numbers: not numbers, build_lenet),
    "resnet": _Family(
        "resnet-D (D = 6n+2)", lambda numbers: len(numbers) == 1 and is_resnet_depth(numbers[0]), build_resnet
    ),
    "wide-resnet": _Family(
        "wide-resnet-D-W (D = 6n+4, widening factor W)",
        lambda numbers: len(numbers) == 2 and is_wide_resnet_depth(numbers[0]),
        build_wide_resnet,
    ),
    "densenet-bc": _Family(
        "densenet-bc-D-G (D = 6n+4, growth rate G)",
        lambda numbers: len(numbers) == 2 and is_densenet_depth(numbers[0]),
        build_densenet,
    ),
}

STUDENT_FORMS = tuple(family.form for family in _FAMILIES.values())
"""Forms of the names of students, for messages and help texts."""

# Up to six digits: no network is larger, and a mistyped number must not allocate terabytes.
_NAME = re.compile(r"(?P<family>[a-z-]+?)(?P<numbers>(?:-[1-9][0-9]{0,5})*)")


def build_student(name: str, *, classes: int, image_shape: tuple[int, int, int], bias: bool = True) -> Network:
    """Return the network called ``name``, its weights drawn from torch's global generator.

    Args:
        name: one of `STUDENT_FORMS`, for instance ``resnet-32`` or ``densenet-bc-100-12``.
        classes: number of classes.
        image_shape: channels, height and width.
        bias: whether the classifier has one; the large-margin softmax requires none.

    Raises:
        StudentNameError: an unknown name.
        ValueError: images that are too small for it, or a size below 1.
    """
    family, numbers = _parsed(name)
    if classes < 1 or min(image_shape) < 1:
        raise ValueError(f"classes, image shape: {classes}, {tuple(image_shape)}; expected sizes of at least 1")
    return family.build(*numbers, classes=classes, image_shape=image_shape, bias=bias)


def refuse_student_name(name: str) -> None:
    """Check a name without building the network.

    Raises:
        StudentNameError: an unknown name.
    """
    _parsed(name)


def _parsed(name: str) -> tuple[_Family, tuple[int, ...]]:
    match = _NAME.fullmatch(name)
    if match is not None and match["family"] in _FAMILIES:
        family = _FAMILIES[match["family"]]
        numbers = tuple(int(number) for number in match["numbers"].split("-")[1:])
        if family.takes(numbers):
            return family, numbers
    raise StudentNameError(f"--student: {name!r}; expected {', '.join(STUDENT_FORMS)}")
