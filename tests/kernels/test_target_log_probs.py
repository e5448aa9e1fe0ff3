"""Log-probabilities of targets: closed form, PyTorch's log-softmax, differences, extreme values."""

import math

import pytest
import torch
from torch import Tensor

from fairseq_l2t.kernels import target_log_probs as module
from fairseq_l2t.kernels.target_log_probs import target_log_probs
from fairseq_l2t.kernels.twice_differentiable import attribute_replaced
from fairseq_l2t.testing.derivatives import largest_error, normal, three_derivatives

TARGETS = torch.tensor([[0, 4, 2], [1, 1, 3]])


def fused(logits: Tensor) -> tuple[Tensor]:
    return (target_log_probs(logits, TARGETS),)


def composed(logits: Tensor, targets: Tensor = TARGETS) -> tuple[Tensor]:
    return (torch.log_softmax(logits, -1).gather(-1, targets.unsqueeze(-1)).squeeze(-1),)


def test_closed_form():
    """Logits log 1, log 2, log 5 give the probabilities 1/8, 2/8, 5/8."""
    logits = torch.tensor([[1.0, 2.0, 5.0]], dtype=torch.float64).log().requires_grad_()
    found = target_log_probs(logits, torch.tensor([1]))
    assert float(found.detach()) == pytest.approx(math.log(1 / 4), rel=1e-14)
    gradient = torch.autograd.grad(found.sum(), logits)[0]
    assert gradient[0].tolist() == pytest.approx([-1 / 8, 3 / 4, -5 / 8], rel=1e-14)


@pytest.mark.parametrize("at_once", [1, 12, module.CHUNK_ELEMENTS])
def test_against_log_softmax(at_once):
    with attribute_replaced(module, "CHUNK_ELEMENTS", at_once):
        for dtype, bound in ((torch.float64, 1e-14), (torch.float32, 1e-5)):
            logits = [normal(2, 3, 5, dtype=dtype)]
            assert largest_error(three_derivatives(fused, logits), three_derivatives(composed, logits)) < bound
            others = three_derivatives(lambda logits: composed(logits, TARGETS.flip(0)), logits)
            assert largest_error(three_derivatives(fused, logits), others) > 0.1


def test_against_differences():
    assert torch.autograd.gradcheck(fused, normal(2, 3, 5))
    assert torch.autograd.gradgradcheck(fused, normal(2, 3, 5))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_extreme_logits(dtype):
    """Probabilities below the smallest number of the dtype have a finite logarithm and finite gradients."""
    logits = torch.tensor([[0.0, -1e4, 1e4], [-3e4, 0.0, -torch.inf]], dtype=dtype).requires_grad_()
    for targets in (torch.tensor([1, 0]), torch.tensor([2, 1])):
        outputs, first, second = three_derivatives(lambda z, y=targets: (target_log_probs(z, y),), [logits])
        torch.testing.assert_close(outputs[0], composed(logits, targets)[0].detach(), rtol=1e-6, atol=0)
        assert all(bool(torch.isfinite(part).all()) for part in (*first, *second))


def test_large_logits_are_accurate():
    """A shift of all logits by a power of 2 has no effect: the difference to the largest is computed first."""
    logits = (normal(2, 3, 5, dtype=torch.float32).detach() * 64).round() / 64
    expected = composed(logits.double())[0].float()
    torch.testing.assert_close(fused(logits + 4096)[0], expected, rtol=3e-7, atol=0)
    torch.testing.assert_close(fused(logits)[0], expected, rtol=3e-7, atol=0)
