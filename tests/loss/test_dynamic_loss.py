"""The dynamic loss in closed form, at extreme values, and its cost."""

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fairseq_l2t.core import LossShape, dynamic_loss

ONE = LossShape()


def loss_at(phi: float, probability: float, shape: LossShape = ONE, dtype=torch.float64):
    """Return (loss, d loss / d log p, d loss / d Phi) of one token of the given probability."""
    log_prob = torch.tensor([math.log(probability)], dtype=dtype, requires_grad=True)
    coefficients = torch.tensor([7.0, phi], dtype=dtype, requires_grad=True)
    targets, keep = torch.tensor([1]), torch.tensor([True])
    loss = dynamic_loss(log_prob, targets, coefficients, keep, shape)
    slopes = torch.autograd.grad(loss, (log_prob, coefficients))
    return float(loss.detach()), float(slopes[0]), float(slopes[1][1])


# sigmoid(log p) = p / (1 + p), so that -sigmoid(Phi log p) = -p^Phi / (1 + p^Phi)
@pytest.mark.parametrize(
    ("phi", "probability", "expected"),
    [
        (1.0, 1.0, -1 / 2),
        (1.0, 0.5, -1 / 3),
        (1.0, 0.25, -1 / 5),
        (2.0, 0.5, -1 / 5),
        (0.5, 0.25, -1 / 3),
        (-1.0, 0.5, -2 / 3),
        (0.0, 0.01, -1 / 2),
    ],
)
def test_closed_form(phi, probability, expected):
    assert loss_at(phi, probability)[0] == pytest.approx(expected, rel=1e-14)
    assert loss_at(phi, probability, LossShape(scale=40))[0] == pytest.approx(40 * expected, rel=1e-14)


@pytest.mark.parametrize("scale", [1.0, 40.0])
@pytest.mark.parametrize("phi", [0.1, 1.0, -0.7, 3.0])
@pytest.mark.parametrize("probability", [0.9, 0.3, 1e-4])
def test_gradients_in_closed_form(phi, probability, scale):
    sigmoid = 1 / (1 + math.exp(-phi * math.log(probability)))
    slope = sigmoid * (1 - sigmoid)
    _, by_log_prob, by_phi = loss_at(phi, probability, LossShape(scale=scale))
    assert by_log_prob == pytest.approx(-scale * phi * slope, rel=1e-12)
    assert by_phi == pytest.approx(-scale * math.log(probability) * slope, rel=1e-12)


@pytest.mark.parametrize(("probability", "share"), [(1.0, 1.0), (1e-2, 0.9488), (1e-4, 0.8147)])
def test_small_coefficients_behave_as_scaled_cross_entropy(probability, share):
    # 4 s (1 - s) at s = sigmoid(0.1 log p): the remaining share of cross-entropy's gradient; the teacher's
    # docstring gives 81 % at p = 1e-4.
    assert -loss_at(0.1, probability, LossShape(scale=40))[1] == pytest.approx(share, abs=1e-4)


def test_small_coefficients_control_one_saturates():
    assert -loss_at(1.0, 1e-4, LossShape(scale=4))[1] < 1e-3


def sentence(dtype=torch.float64):
    """Return log p (2, 3), targets, coefficients (5,) and a mask that drops two tokens."""
    log_probs = -torch.tensor([[0.1, 2.0, 3.0], [0.5, 1.0, 9.0]], dtype=dtype)
    targets = torch.tensor([[1, 2, 3], [3, 0, 0]])
    coefficients = torch.tensor([9.0, 0.1, 0.2, -0.3, 0.4], dtype=dtype)
    return log_probs, targets, coefficients, torch.tensor([[True, True, True], [True, False, False]])


@pytest.mark.parametrize("mix", [0.0, 0.3, 1.0])
def test_sum_over_tokens_and_mix(mix):
    log_probs, targets, coefficients, keep = sentence()
    expected = 0.0
    for log_prob, target in [(-0.1, 1), (-2.0, 2), (-3.0, 3), (-0.5, 3)]:
        sigmoid = 1 / (1 + math.exp(-float(coefficients[target]) * log_prob))
        expected += -mix * log_prob - (1 - mix) * 8.0 * sigmoid
    found = dynamic_loss(log_probs, targets, coefficients, keep, LossShape(8.0, mix))
    assert found.shape == ()
    assert float(found) == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("mix", [0.0, 0.3, 1.0])
def test_one_sigmoid_per_sentence(mix):
    log_probs, targets, coefficients, keep = sentence()
    expected = 0.0
    for tokens in ([(-0.1, 1), (-2.0, 2), (-3.0, 3)], [(-0.5, 3)]):
        mean = sum(float(coefficients[target]) * log_prob for log_prob, target in tokens) / len(tokens)
        expected -= (1 - mix) * 8.0 * len(tokens) / (1 + math.exp(-mean))
        expected -= mix * sum(log_prob for log_prob, _ in tokens)
    shape = LossShape(8.0, mix, "sentence")
    found = dynamic_loss(log_probs, targets, coefficients, keep, shape)
    assert found.shape == ()
    assert float(found) == pytest.approx(expected, rel=1e-14)
    # control: the two levels agree for a sentence of one token and differ for three
    one = [
        dynamic_loss(log_probs[1:], targets[1:], coefficients, keep[1:], LossShape(8.0, mix, level))
        for level in ("token", "sentence")
    ]
    assert float(one[0]) == pytest.approx(float(one[1]), rel=1e-14)
    if mix < 1:
        assert float(found) != pytest.approx(
            float(dynamic_loss(log_probs, targets, coefficients, keep, LossShape(8.0, mix))), rel=1e-6
        )


def test_gradients_of_a_sentence():
    log_probs, targets, coefficients, keep = sentence()
    log_probs.requires_grad_()
    coefficients.requires_grad_()
    loss = dynamic_loss(log_probs, targets, coefficients, keep, LossShape(8.0, 0.0, "sentence"))
    by_log_prob, by_phi = torch.autograd.grad(loss, (log_probs, coefficients))
    sigmoid = 1 / (1 + math.exp(-(0.1 * -0.1 + 0.2 * -2.0 + -0.3 * -3.0) / 3))
    slope = 8.0 * sigmoid * (1 - sigmoid)  # three tokens of a third each
    assert by_log_prob[0].tolist() == pytest.approx([-slope * phi for phi in (0.1, 0.2, -0.3)], rel=1e-12)
    assert float(by_phi[2]) == pytest.approx(2.0 * slope, rel=1e-12)


def test_tokens_of_implausible_sentences_have_smaller_gradients():
    """Two tokens of equal log p: one in an implausible sentence, one in a plausible sentence."""
    log_probs = torch.tensor([[-2.0, -9.0, -9.0], [-2.0, -0.1, -0.1]], dtype=torch.float64, requires_grad=True)
    targets, keep = torch.zeros(2, 3, dtype=torch.long), torch.ones(2, 3).bool()
    slopes = {}
    for level in ("token", "sentence"):
        shape = LossShape(4.0, level=level)
        loss = dynamic_loss(log_probs, targets, torch.ones(1, dtype=torch.float64), keep, shape)
        slopes[level] = torch.autograd.grad(loss, log_probs)[0][:, 0]
    assert slopes["token"][0] == slopes["token"][1]
    assert slopes["sentence"][0].abs() < 0.02 * slopes["sentence"][1].abs()


@pytest.mark.parametrize("level", ["word", "", None])
def test_unknown_levels_are_refused(level):
    with pytest.raises(ValueError, match="--loss-level: .*expected token or sentence"):
        LossShape(level=level)


@pytest.mark.parametrize("entry", [-1e4, 0.0, -math.inf, math.nan])
@pytest.mark.parametrize("mix", [0.0, 0.3])
@pytest.mark.parametrize("level", ["token", "sentence"])
def test_padding_is_ignored(entry, mix, level):
    log_probs, targets, coefficients, keep = sentence()
    found = []
    for padded, word in ((-1.0, 0), (entry, 4)):
        values = log_probs.masked_fill(~keep, padded).requires_grad_()
        words, phi = targets.masked_fill(~keep, word), coefficients.clone().requires_grad_()
        loss = dynamic_loss(values, words, phi, keep, LossShape(8.0, mix, level))
        found.append((loss.detach(), *torch.autograd.grad(loss, (values, phi))))
    assert all(map(torch.equal, *found))
    assert torch.count_nonzero(found[0][1][~keep]) == 0
    # control: the same change of a token that counts has an effect
    assert float(dynamic_loss(log_probs - 1, targets, coefficients, keep, ONE)) != float(found[0][0])


@pytest.mark.parametrize("phi", [0.0, 1e-3, 1.0, 50.0, -50.0])
@pytest.mark.parametrize("probability", [1.0, 0.5, 1e-4, 1e-30])
def test_extreme_values(phi, probability):
    wide, narrow = (loss_at(phi, probability, dtype=dtype) for dtype in (torch.float64, torch.float32))
    assert all(map(math.isfinite, (*wide, *narrow)))
    assert narrow == pytest.approx(wide, abs=1e-5, rel=1e-5)
    assert -1 <= wide[0] <= 0


class LargestOutput(TorchDispatchMode):
    """Records the number of elements of the largest tensor that any operation returns."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.elements = max(self.elements, result.numel())
        return result


def test_no_product_of_vocabulary_size():
    words, tokens = 5000, 64
    log_probs = torch.full((tokens,), -1.0, requires_grad=True)
    coefficients = torch.ones(words, requires_grad=True)
    targets, keep = torch.arange(tokens), torch.ones(tokens, dtype=torch.bool)
    with LargestOutput() as forward:
        loss = dynamic_loss(log_probs, targets, coefficients, keep, ONE)
    with LargestOutput() as both:
        torch.autograd.grad(loss, (log_probs, coefficients))
    assert forward.elements == tokens
    assert both.elements == words  # the gradient of Phi itself; a product would have words * tokens


@pytest.mark.parametrize("scale", [0.0, -1.0, math.inf, math.nan, 1e20])
def test_bad_scale(scale):
    with pytest.raises(ValueError, match="--loss-scale: .*; expected a number above 0 and at most 10000000"):
        LossShape(scale=scale)


@pytest.mark.parametrize("mix", [-0.1, 1.1, math.nan])
def test_bad_mix(mix):
    with pytest.raises(ValueError, match=r"--cross-entropy-mix: .*; expected a number in \[0, 1\]"):
        LossShape(cross_entropy_mix=mix)


def smoothed(level: str, phi: float = 0.3, psi: float = 0.1):
    """Return the loss of `sentence` with equal Phi and psi, its inputs, and the means (2, 3)."""
    log_probs, targets, _, keep = sentence()
    means = -torch.tensor([[4.0, 5.0, 6.0], [7.0, math.inf, math.nan]], dtype=torch.float64)
    coefficients = torch.tensor([phi] * 5 + [psi], dtype=torch.float64)
    inputs = [part.requires_grad_() for part in (log_probs, coefficients, means)]
    return dynamic_loss(log_probs, targets, coefficients, keep, LossShape(8.0, level=level), means), inputs


def test_smoothed_in_closed_form():
    tokens = [(-0.1, -4.0), (-2.0, -5.0), (-3.0, -6.0), (-0.5, -7.0)]
    products = [0.3 * log_prob + 0.1 * mean for log_prob, mean in tokens]
    expected = -8.0 * sum(1 / (1 + math.exp(-product)) for product in products)
    assert float(smoothed("token")[0].detach()) == pytest.approx(expected, rel=1e-14)
    of_sentences = [sum(products[:3]) / 3] * 3 + products[3:]
    expected = -8.0 * sum(1 / (1 + math.exp(-product)) for product in of_sentences)
    assert float(smoothed("sentence")[0].detach()) == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("level", ["token", "sentence"])
def test_gradients_of_a_smoothed_phi(level):
    loss, inputs = smoothed(level)
    by_log_prob, by_coefficient, by_mean = torch.autograd.grad(loss, inputs)
    torch.testing.assert_close(by_mean, by_log_prob * (0.1 / 0.3), rtol=1e-12, atol=0)
    assert by_mean[1, 1:].tolist() == [0.0, 0.0]
    h = 1e-6
    slope = [float(smoothed(level, psi=0.1 + sign * h)[0].detach()) for sign in (1, -1)]
    assert float(by_coefficient[-1]) == pytest.approx((slope[0] - slope[1]) / (2 * h), rel=1e-8)


@pytest.mark.parametrize("level", ["token", "sentence"])
def test_a_small_smoothed_phi_is_label_smoothing(level):
    """Phi = (1 - E) x and psi = E x for a small x: the sigmoid is linear with slope 1/4."""
    log_probs, targets, _, keep = sentence()
    means = log_probs - 3.0
    log_probs.requires_grad_()
    means.requires_grad_()
    coefficients = torch.tensor([0.8e-6] * 5 + [0.2e-6], dtype=torch.float64)
    loss = dynamic_loss(log_probs, targets, coefficients, keep, LossShape(4e6, level=level), means)
    of_targets, of_all = torch.autograd.grad(loss, (log_probs, means))
    torch.testing.assert_close(of_targets, -0.8 * keep.double(), rtol=1e-5, atol=0)
    torch.testing.assert_close(of_all, -0.2 * keep.double(), rtol=1e-5, atol=0)
