"""The full-Phi loss: closed form, the diagonal form, autograd and finite differences."""

import math

import pytest
import torch

from fairseq_l2t.core import LossShape, dynamic_loss
from fairseq_l2t.loss.full_loss import full_dynamic_loss

PROBABILITIES = ((0.7, 0.2, 0.1), (0.25, 0.5, 0.25))
LABELS = torch.tensor([0, 2])
PHI = torch.tensor([1.0, -0.2, 0.1, 0.0, 1.0, 0.0, 0.3, 0.4, 0.5], dtype=torch.float64)


def log_probs():
    return torch.tensor(PROBABILITIES, dtype=torch.float64).log()


def by_hand(scale=1.0, mix=0.0):
    """Row 0 of Phi for the first example, row 2 for the second."""
    first = 1.0 * math.log(0.7) - 0.2 * math.log(0.2) + 0.1 * math.log(0.1)
    second = 0.3 * math.log(0.25) + 0.4 * math.log(0.5) + 0.5 * math.log(0.25)
    taught = -scale * (1 / (1 + math.exp(-first)) + 1 / (1 + math.exp(-second)))
    return (1 - mix) * taught - mix * (math.log(0.7) + math.log(0.25))


@pytest.mark.parametrize(("scale", "mix"), [(1.0, 0.0), (4.0, 0.0), (2.0, 0.25)])
def test_closed_form(scale, mix):
    found = full_dynamic_loss(log_probs(), LABELS, PHI, LossShape(scale, mix))
    assert float(found) == pytest.approx(by_hand(scale, mix), rel=1e-12)
    assert float(full_dynamic_loss(log_probs(), LABELS.flip(0), PHI, LossShape(scale, mix))) != pytest.approx(
        by_hand(scale, mix), rel=1e-3
    )


def test_a_diagonal_phi_is_the_diagonal_loss():
    coefficients = torch.tensor([0.3, 0.9, 0.6], dtype=torch.float64)
    full = full_dynamic_loss(log_probs(), LABELS, torch.diag(coefficients).reshape(-1), LossShape(3.0, 0.1))
    target = log_probs().gather(1, LABELS.unsqueeze(1))
    keep = torch.ones_like(target, dtype=torch.bool)
    diagonal = dynamic_loss(target, LABELS.unsqueeze(1), coefficients, keep, LossShape(3.0, 0.1))
    torch.testing.assert_close(full, diagonal, rtol=1e-14, atol=0)
    with_others = torch.diag(coefficients) + 0.01
    control = full_dynamic_loss(log_probs(), LABELS, with_others.reshape(-1), LossShape(3.0, 0.1))
    assert not torch.isclose(control, diagonal, rtol=1e-3)


def test_gradient_of_phi_in_closed_form():
    phi = PHI.clone().requires_grad_()
    full_dynamic_loss(log_probs(), LABELS, phi, LossShape(2.0)).backward()
    rows = phi.grad.view(3, 3)
    assert torch.equal(rows[1], torch.zeros(3, dtype=torch.float64))  # no example of class 1
    for example, label in enumerate((0, 2)):
        argument = float(PHI.view(3, 3)[label] @ log_probs()[example])
        sigmoid = 1 / (1 + math.exp(-argument))
        expected = -2.0 * sigmoid * (1 - sigmoid) * log_probs()[example]
        torch.testing.assert_close(rows[label], expected, rtol=1e-12, atol=0)


def test_first_and_second_derivatives():
    scores = torch.randn(4, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    phi = PHI.clone().requires_grad_()
    labels = torch.tensor([0, 2, 1, 2])

    def loss(scores, phi):
        return full_dynamic_loss(scores.log_softmax(-1), labels, phi, LossShape(2.0, 0.2))

    assert torch.autograd.gradcheck(loss, (scores, phi))
    assert torch.autograd.gradgradcheck(loss, (scores, phi))


def test_extreme_scores_stay_finite():
    scores = torch.tensor([[1e4, -1e4, 0.0]], requires_grad=True)
    phi = PHI.float().requires_grad_()
    loss = full_dynamic_loss(scores.log_softmax(-1), torch.tensor([1]), phi, LossShape())
    loss.backward()
    assert math.isfinite(loss.item()) and bool(torch.isfinite(scores.grad).all() and torch.isfinite(phi.grad).all())


@pytest.mark.parametrize("phi", [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.5, 2.0, -2.0], [0.0, 50.0, -50.0]])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_impossible_classes_give_no_nan(phi, dtype):
    log_probs = torch.tensor([[0.0, -math.inf, -math.inf]], dtype=dtype, requires_grad=True)
    coefficients = torch.tensor([*phi, *[1.0] * 6], dtype=dtype, requires_grad=True)
    loss = full_dynamic_loss(log_probs, torch.tensor([0]), coefficients, LossShape(2.0))
    by = torch.autograd.grad(loss, (log_probs, coefficients), create_graph=True)
    twice = torch.autograd.grad(sum(part.sum() for part in by), (log_probs, coefficients))
    # sigmoid(0) = 1/2: log p = 0 of the label adds nothing, and the other two have Phi 0, or cancel.
    assert loss.item() == pytest.approx(-1.0)
    assert all(bool(torch.isfinite(part).all()) for part in (*by, *twice))
    assert by[0][0, 0].item() == pytest.approx(-2.0 * phi[0] / 4)
    assert by[0][0, 1:].tolist() == [0.0, 0.0]


@pytest.mark.parametrize(("phi", "expected"), [(1.0, 0.0), (-1.0, -1.0)])
def test_an_impossible_class_dominates_unless_its_coefficient_is_0(phi, expected):
    coefficients = torch.tensor([1.0, phi, 1.0, 1.0])
    found = full_dynamic_loss(torch.tensor([[0.0, -math.inf]]), torch.tensor([0]), coefficients, LossShape())
    assert found.item() == expected


def test_gradient_of_phi_against_finite_differences():
    step, shape, found = 1e-5, LossShape(2.0, 0.2), PHI.clone().requires_grad_()
    full_dynamic_loss(log_probs(), LABELS, found, shape).backward()
    for j, direction in enumerate(step * torch.eye(9, dtype=torch.float64)):
        above, below = (full_dynamic_loss(log_probs(), LABELS, PHI + s * direction, shape) for s in (1, -1))
        assert float(found.grad[j]) == pytest.approx(float(above - below) / (2 * step), rel=1e-7, abs=1e-10)


def test_invalid_arguments_are_refused():
    with pytest.raises(ValueError, match="coefficients: 4; expected 9 for 3 classes"):
        full_dynamic_loss(log_probs(), LABELS, torch.ones(4), LossShape())
    with pytest.raises(ValueError, match="--loss-level: sentence; expected token"):
        full_dynamic_loss(log_probs(), LABELS, PHI, LossShape(level="sentence"))
