"""The dynamic loss and its derivatives at target probabilities near 0 and 1: float32 against float64."""

import itertools
import math

import pytest
import torch

from fairseq_l2t.core import LossShape, dynamic_loss

WORDS, TARGET = 7, 2
TOLERANCE = 1e-5
ROUNDING = 2.0**-22
"""Rounding error of a few float32 operations; that of a sigmoid, or of log p near 0, is at most 2^-24."""

PROBABILITIES = [1e-30, 1e-4, 0.5, 0.99, 1 - 1e-6, 1.0]
COEFFICIENTS = [0.0, 1e-6, 0.1, 1.0, 50.0, -50.0, -1.0]
SENTENCES = [*([p] for p in PROBABILITIES), PROBABILITIES]
NAMES = ["loss", "by logits", "by Phi", "product by logits", "product by Phi"]


def logits_of(probability: float) -> torch.Tensor:
    """Return float32 logits (words,) at which the target has this probability; a log-odds of 60 stands for 1."""
    odds = math.log(probability) - math.log1p(-probability) if probability < 1 else 60.0
    logits = torch.zeros(WORDS)
    logits[TARGET] = odds + math.log(WORDS - 1)
    return logits


def derivatives(probabilities, phi: float, mix: float, dtype) -> list[torch.Tensor]:
    """Return the five `NAMES` for one sentence; products are of random vectors with second derivatives."""
    logits = torch.stack([logits_of(p) for p in probabilities]).to(dtype).unsqueeze(0).requires_grad_()
    coefficients = torch.full((WORDS,), phi).to(dtype).requires_grad_()
    targets = torch.full((1, len(probabilities)), TARGET)
    log_probs = logits.log_softmax(-1).gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    loss = dynamic_loss(log_probs, targets, coefficients, torch.ones_like(targets).bool(), LossShape(1.0, mix))
    gradients = torch.autograd.grad(loss, (logits, coefficients), create_graph=True)
    generator = torch.Generator().manual_seed(0)
    vectors = [torch.randn(part.shape, generator=generator).to(dtype) for part in gradients]
    products = torch.autograd.grad(gradients, (logits, coefficients), vectors)
    return [part.detach() for part in (loss, *gradients, *products)]


def floors(probabilities, phi: float) -> list[float]:
    """Return the size below which an error is ignored, for each of `NAMES`.

    A token's loss is at most 1. The rounding error of log p near 0, times Phi, is part of the loss and of its
    derivatives with respect to logits. The second derivative with respect to Phi is that of the sigmoid, at most 1/10,
    times (log p)^2; near Phi = 0, where the former is 0, its rounding error remains.
    """
    times_phi = max(1.0, abs(phi)) * ROUNDING
    curvature = max(math.log(p) ** 2 for p in probabilities) / 10 * ROUNDING
    return [times_phi, times_phi, ROUNDING, times_phi, max(times_phi, curvature)]


def worst(narrow, wide) -> list[tuple[float, float]]:
    """Return (largest error, largest expected element) for each of `NAMES`."""
    return [
        (float((ours.double() - theirs).abs().max()), float(theirs.abs().max()))
        for ours, theirs in zip(narrow, wide, strict=True)
    ]


@pytest.mark.parametrize("mix", [0.0, 0.3])
@pytest.mark.parametrize("phi", COEFFICIENTS)
def test_float32_is_float64(phi, mix):
    for probabilities in SENTENCES:
        narrow, wide = (derivatives(probabilities, phi, mix, dtype) for dtype in (torch.float32, torch.float64))
        assert all(bool(torch.isfinite(part).all()) for part in (*narrow, *wide))
        found = zip(NAMES, worst(narrow, wide), floors(probabilities, phi), strict=True)
        for name, (error, size), floor in found:
            assert error <= TOLERANCE * size + floor, f"{name} of {probabilities}: {error:.1e} off, of {size:.1e}"


def test_logits_give_the_target_probability():
    for probability, dtype in itertools.product(PROBABILITIES, (torch.float32, torch.float64)):
        found = float(logits_of(probability).to(dtype).log_softmax(-1)[TARGET])
        assert found == pytest.approx(math.log(probability), rel=1e-6, abs=2 * ROUNDING)


def test_control_another_phi_fails_the_comparison():
    # A coefficient that is off by 1 % fails the comparison, at both ends.
    for probabilities, phi in (([1e-30], 0.1), ([0.99], 50.0), ([0.99], -50.0), (PROBABILITIES, 1.0)):
        right = derivatives(probabilities, phi, 0.0, torch.float64)
        wrong = derivatives(probabilities, phi * 1.01, 0.0, torch.float32)
        for (error, size), floor in zip(worst(wrong, right), floors(probabilities, phi), strict=True):
            assert error > TOLERANCE * size + floor


@pytest.mark.parametrize("phi", COEFFICIENTS)
def test_closed_form_of_the_smallest_probability(phi):
    # A closed form, because both dtypes could have the same error: s = p^Phi / (1 + p^Phi), slope s (1 - s).
    log_prob = math.log(1e-30)
    sigmoid = 1 / (1 + math.exp(-phi * log_prob)) if -phi * log_prob < 700 else 0.0
    loss, by_logits, by_phi, *_ = derivatives([1e-30], phi, 0.0, torch.float32)
    slope = sigmoid * (1 - sigmoid)
    assert float(loss) == pytest.approx(-sigmoid, rel=1e-5, abs=1e-12)
    assert float(by_phi[TARGET]) == pytest.approx(-log_prob * slope, rel=1e-5, abs=1e-12)
    assert float(by_logits[0, 0, TARGET]) == pytest.approx(-phi * slope, rel=1e-5, abs=1e-12)


def test_saturation_keeps_its_digits_on_both_sides():
    # Slope and curvature of -s are -s (1 - s) and s (1 - s) (2 s - 1), which for s next to 1 are as small as for s
    # next to 0. The control is PyTorch's own sigmoid, whose y (1 - y) is 0 there.
    def of(function, x):
        x = torch.tensor(x, requires_grad=True)
        (slope,) = torch.autograd.grad(function(x), x, create_graph=True)
        return float(slope.detach()), float(torch.autograd.grad(slope, x)[0])

    def ours(x):
        log_prob, one = x.neg().view(1), torch.ones(1)
        return dynamic_loss(log_prob, torch.tensor([0]), -one, one.bool(), LossShape())

    for x in (-80.0, -20.0, -1.0, 0.0, 1.0, 10.0, 20.0, 80.0):
        small = 1 / (1 + math.exp(abs(x)))
        slope = -small * (1 - small)
        assert of(ours, x) == pytest.approx((slope, -slope * math.tanh(x / 2)), rel=TOLERANCE, abs=0)
    assert of(lambda x: -torch.sigmoid(x), 20.0) == (0, 0)
