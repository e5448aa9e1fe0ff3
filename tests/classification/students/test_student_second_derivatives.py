"""Jacobian products of every family's update against float64 finite differences; who is verified for."""

from contextlib import contextmanager, nullcontext

import pytest
import torch
from torch import nn

from fairseq_l2t.classification.students import VERIFIED, build_student
from fairseq_l2t.classification.students.batch_norm import collect_statistics, running_loss
from fairseq_l2t.classification.students.resnet import ResidualBlock
from fairseq_l2t.kernels.twice_differentiable import (
    VERIFIED_TORCH_MODULES,
    NotTwiceDifferentiableError,
    outer_gradient,
    refuse_unverified,
    twice_differentiable,
)
from fairseq_l2t.unroll.flat_parameters import FlatParameters

DIGITS, MNIST = (1, 8, 8), (1, 28, 28)
CLASSES = 3
# One of every form: 5x5 kernels and 3x3 in LeNet, a stage without and with a shortcut of its own in wide networks.
FAMILIES = [
    ("mlp-5", DIGITS),
    ("lenet", DIGITS),
    ("lenet", MNIST),
    ("resnet-8", DIGITS),
    ("wide-resnet-10-1", DIGITS),
    ("wide-resnet-10-2", DIGITS),
    ("densenet-bc-10-4", DIGITS),
]
STEP = 1e-7
"""So small that no ReLU and no maximum of a pooling changes sides on the way, which the tests check."""


class Field:
    """The update's vector field of one network on one batch: gradients of the weights and running statistics."""

    def __init__(self, name, image_shape):
        torch.manual_seed(3)
        self.model = build_student(name, classes=CLASSES, image_shape=image_shape).double().train()
        self.parameters = FlatParameters(self.model.named_parameters())
        self.start = self.parameters.buffer.clone()
        self.images = torch.randn(4, *image_shape, dtype=torch.float64)
        self.labels = torch.tensor([0, 1, 2, 0])
        self.direction, self.cotangent = torch.randn(2, len(self.start), dtype=torch.float64)

    def gradients(self, create_graph):
        with collect_statistics() as collected:
            loss = nn.functional.cross_entropy(self.model(self.images), self.labels)
        return torch.autograd.grad(
            loss + running_loss(collected), self.parameters.parameters, create_graph=create_graph
        )

    def product(self, outer):
        """u^T J^T v by double backward."""
        cotangents = self.parameters.split(self.cotangent)
        with twice_differentiable():
            gradients = self.gradients(create_graph=True)
            with outer:
                pulled = torch.autograd.grad(gradients, self.parameters.parameters, cotangents, allow_unused=True)
        return float(self.parameters.gather(pulled) @ self.direction)

    def slope(self, step=STEP):
        """The same by central differences."""
        ends = []
        for distance in (step, -step):
            with self.moved(distance):
                ends.append(float(self.parameters.gather(self.gradients(create_graph=False)) @ self.cotangent))
        return (ends[0] - ends[1]) / (2 * step)

    @contextmanager
    def moved(self, distance):
        self.parameters.set(self.start + distance * self.direction)
        yield
        self.parameters.set(self.start)

    def sides(self, distance):
        """Which ReLUs are open and where the maxima are, ``distance`` away from the start."""
        seen, hooks = [], []
        for part in self.model.modules():
            if isinstance(part, nn.ReLU):
                hooks.append(part.register_forward_hook(lambda _, x, out: seen.append((x[0] > 0).flatten().long())))
            elif isinstance(part, ResidualBlock):
                hooks.append(part.register_forward_hook(lambda _, x, out: seen.append((out > 0).flatten().long())))
            elif isinstance(part, nn.MaxPool2d):
                hooks.append(
                    part.register_forward_hook(
                        lambda _, x, out: seen.append(
                            nn.functional.max_pool2d(x[0], 2, return_indices=True)[1].flatten()
                        )
                    )
                )
        with self.moved(distance), torch.no_grad():
            self.model(self.images)
        for hook in hooks:
            hook.remove()
        return torch.cat(seen)

    def kinks(self, step=STEP):
        """Number of ReLUs and maxima that change sides between the ends of the step."""
        return int((self.sides(step) != self.sides(-step)).sum())


@pytest.mark.parametrize(("name", "image_shape"), FAMILIES)
def test_products_are_those_of_finite_differences(name, image_shape):
    field = Field(name, image_shape)
    assert field.kinks() == 0
    slope = field.slope()
    assert abs(slope) > 1e-2
    assert field.product(outer_gradient()) == pytest.approx(slope, rel=1e-6)
    # The control: without the mark of the outer gradient, what the batch does to running statistics is lost.
    inner = field.product(nullcontext())
    carries = any(name.endswith("running_var") for name in field.parameters.names)
    assert (abs(inner - slope) > 1e-2 * abs(slope)) == carries


@pytest.mark.parametrize("name", ["lenet", "resnet-8"])
def test_kinks_are_noticed(name):
    """The control of the method: longer steps meet kinks, and differences across them are no derivatives."""
    field = Field(name, DIGITS)
    assert field.kinks(1e3 * STEP) > 0
    assert field.slope(1e3 * STEP) != pytest.approx(field.slope(), rel=1e-2)


@pytest.mark.parametrize(("name", "image_shape"), FAMILIES)
def test_every_family_is_verified_for(name, image_shape):
    refuse_unverified(build_student(name, classes=CLASSES, image_shape=image_shape), VERIFIED)


def test_nobody_is_verified_for_without_need():
    """Every name of `VERIFIED` is met above, and none is known to core already."""
    met = {
        f"{type(part).__module__}.{type(part).__qualname__}"
        for name, image_shape in FAMILIES
        for part in build_student(name, classes=CLASSES, image_shape=image_shape).modules()
    }
    assert met >= VERIFIED
    assert not VERIFIED & VERIFIED_TORCH_MODULES


def test_pytorchs_batch_normalisation_is_refused():
    model = build_student("resnet-8", classes=CLASSES, image_shape=DIGITS)
    model.body[1] = nn.BatchNorm2d(16)
    with pytest.raises(NotTwiceDifferentiableError, match=r"body\.1 \(torch\.nn\.modules\.batchnorm\.BatchNorm2d\)"):
        refuse_unverified(model, VERIFIED)
