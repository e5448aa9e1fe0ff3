"""The baselines against hand-computed points, torch, and finite differences."""

import math

import pytest
import torch
from torch import nn
from torch.func import functional_call

from fairseq_l2t.classification.large_margin import LargeMarginSoftmax, angular_margin
from fairseq_l2t.classification.losses import CRITERIA, CrossEntropy, LabelSmoothing, SmoothZeroOne, build_criterion


def layer(weights):
    """Return a last layer without bias."""
    weights = torch.as_tensor(weights, dtype=torch.float64)
    found = nn.Linear(weights.shape[1], weights.shape[0], bias=False, dtype=torch.float64)
    found.weight.data.copy_(weights)
    return found


def losses_of(criterion, scores, label, update=0):
    """Return the loss of one example whose scores are given."""
    scores = torch.as_tensor([scores], dtype=torch.float64)
    identity = layer(torch.eye(scores.shape[1]))
    return criterion.per_example(scores, identity, torch.tensor([label]), update)[0].item()


SCORES = [math.log(0.7), math.log(0.2), math.log(0.1)]


def test_cross_entropy_by_hand():
    assert losses_of(CrossEntropy(), SCORES, 1) == pytest.approx(-math.log(0.2), rel=1e-12)


def test_label_smoothing_by_hand():
    # 0.1 of the weight is spread over all three classes.
    expected = -(0.9 + 0.1 / 3) * math.log(0.7) - 0.1 / 3 * (math.log(0.2) + math.log(0.1))
    assert losses_of(LabelSmoothing(0.1), SCORES, 0) == pytest.approx(expected, rel=1e-12)
    assert losses_of(LabelSmoothing(0.0), SCORES, 0) == pytest.approx(-math.log(0.7), rel=1e-12)


def test_smooth_zero_one_by_hand():
    # log p_y - max log p_j: log 0.7 - log 0.2 = log 3.5 for label 0, log 0.2 - log 0.7 for label 1; K = 2 squares.
    assert losses_of(SmoothZeroOne(2.0), SCORES, 0) == pytest.approx(math.log(1 + 1 / 3.5**2), rel=1e-12)
    assert losses_of(SmoothZeroOne(2.0), SCORES, 1) == pytest.approx(math.log(1 + 3.5**2), rel=1e-12)


def test_smooth_zero_one_is_nearly_0_where_it_is_right():
    assert losses_of(SmoothZeroOne(50.0), SCORES, 0) < 1e-20 < losses_of(CrossEntropy(), SCORES, 0)
    assert losses_of(SmoothZeroOne(50.0), SCORES, 2) > 50


@pytest.mark.parametrize("margin", [1, 2, 3, 4])
def test_angular_margin_is_that_of_the_angle(margin):
    angles = torch.linspace(0.01, math.pi - 0.01, 301, dtype=torch.float64)
    k = (angles * margin / math.pi).floor()
    expected = (-1.0) ** k * torch.cos(margin * angles) - 2 * k
    found = angular_margin(angles.cos(), margin)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
    assert bool((found.diff() < 0).all())  # falls all the way, without jumps
    assert float(found.diff().abs().max()) < 0.2
    if margin > 1:
        assert not torch.allclose(found, angles.cos(), atol=0.1)


def test_large_margin_by_hand():
    # x = (1, 0), w_0 = (1, 1): cos t = 1/sqrt 2, t = 45 degrees, |x||w_0| = sqrt 2. m = 2: psi = cos 90 = 0, so at
    # lambda 1 the score of class 0 is (1 * 1 + sqrt 2 * 0) / 2 = 0.5; that of w_1 = (0.5, 0) stays 0.5.
    criterion = LargeMarginSoftmax(2, anneal_updates=1, lambda_start=1.0, lambda_end=1.0)
    classifier = layer([[1.0, 1.0], [0.5, 0.0]])
    features = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    losses, logits = criterion.per_example(features, classifier, torch.tensor([0]), 0)
    assert losses.item() == pytest.approx(math.log(2), rel=1e-12)
    assert logits.tolist() == [[1.0, 0.5]]


def test_margin_1_is_cross_entropy():
    assert losses_of(LargeMarginSoftmax(1), SCORES, 1) == pytest.approx(-math.log(0.2), rel=1e-12)
    assert losses_of(LargeMarginSoftmax(2), SCORES, 1, 10**6) > -math.log(0.2) + 0.01


@pytest.mark.parametrize("update", [0, 10**6])
def test_margin_1_is_cross_entropy_with_its_gradient_even_of_zero_features(update):
    features = torch.tensor([[2.0, 0.0], [0.0, 0.0], [1e-20, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    features.requires_grad_()
    classifier, labels = layer([[1.0, 0.0], [0.3, 0.7]]), torch.tensor([0, 1, 0, 0])
    found, expected = (
        torch.autograd.grad(
            criterion.per_example(features, classifier, labels, update)[0].sum(), (features, classifier.weight)
        )
        for criterion in (LargeMarginSoftmax(1), CrossEntropy())
    )
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize("margin", [1, 2, 3, 4])
def test_large_margin_is_finite_at_both_ends_of_the_cosine(margin):
    classifier = layer([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]]).float()
    features = torch.tensor([[2.0, 0.0], [2.0, 0.0], [1.0, 1.0], [0.0, 0.0]], requires_grad=True)
    losses, _ = LargeMarginSoftmax(margin).per_example(features, classifier, torch.tensor([0, 1, 2, 0]), 10**6)
    gradients = torch.autograd.grad(losses.sum(), (features, classifier.weight))
    assert all(bool(torch.isfinite(part).all()) for part in (losses, *gradients))


def test_lambda_falls_by_a_constant_factor():
    criterion = LargeMarginSoftmax(2, anneal_updates=100, lambda_start=1000.0, lambda_end=10.0)
    found = [criterion.annealed(update) for update in (0, 50, 100, 500)]
    assert found == pytest.approx([1000.0, 100.0, 10.0, 10.0])


@pytest.mark.parametrize(
    "criterion",
    [CrossEntropy(), LabelSmoothing(0.2), SmoothZeroOne(3.0), *(LargeMarginSoftmax(m) for m in (1, 2, 3, 4))],
)
def test_gradients(criterion):
    generator = torch.Generator().manual_seed(3)
    features = torch.randn(5, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    classifier = layer(torch.randn(3, 4, generator=generator))
    labels = torch.tensor([0, 1, 2, 1, 0])

    def loss(features, weight):
        return functional_call(Loss(criterion, classifier), {"classifier.weight": weight}, (features, labels))

    assert torch.autograd.gradcheck(loss, (features, classifier.weight.detach().clone().requires_grad_()))


class Loss(nn.Module):
    """A criterion with its last layer, as a function of that layer's weights."""

    def __init__(self, criterion, classifier):
        super().__init__()
        self.criterion, self.classifier = criterion, classifier

    def forward(self, features, labels):
        return self.criterion.per_example(features, self.classifier, labels, 700)[0].sum()


@pytest.mark.parametrize("name", CRITERIA)
def test_extreme_scores_stay_finite(name):
    criterion = build_criterion(name)
    features = torch.tensor([[1e4, -1e4, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64, requires_grad=True)
    losses, logits = criterion.per_example(features, layer(torch.eye(3)), torch.tensor([1, 2]), 5)
    losses.sum().backward()
    assert bool(torch.isfinite(losses).all() and torch.isfinite(features.grad).all()) and logits.shape == (2, 3)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("hinge", {}, "--loss: hinge; expected one of cross-entropy, label-smoothing, smooth-zero-one, large-margin"),
        ("label-smoothing", {"epsilon": 1.0}, r"--label-smoothing: 1.0; expected a number in \[0, 1\)"),
        ("smooth-zero-one", {"k": 0.0}, "--smooth-k: 0.0; expected a finite number above 0"),
        ("large-margin", {"margin": 5}, "--margin: 5; expected 1, 2, 3 or 4"),
        ("large-margin", {"lambda_end": 2000.0}, "--lambda-min: 2000.0; expected a number above 0 and at most 1000"),
        ("large-margin", {"anneal_updates": 0}, "anneal_updates: 0"),
    ],
)
def test_bad_options(name, options, message):
    with pytest.raises(ValueError, match=message):
        build_criterion(name, **options)


def test_an_angle_needs_a_layer_without_bias():
    assert [build_criterion(name).needs_bias for name in CRITERIA] == [True, True, True, False]
    with pytest.raises(ValueError, match="has a bias"):
        build_criterion("large-margin").per_example(torch.ones(1, 2), nn.Linear(2, 2), torch.tensor([0]), 0)
