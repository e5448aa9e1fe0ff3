"""Layer normalisation of the reverse pass: PyTorch's value and gradient to the bit, its second gradient to rounding."""

import pytest
import torch
from torch.nn import functional as F

from fairseq_l2t.kernels.layer_norm import fused_layer_norm
from fairseq_l2t.testing.derivatives import largest_error, normal, three_derivatives

STOCK = F.layer_norm
EPS = 1e-2


def by(layer_norm, eps: float = EPS):
    """Return a function of rows, weight and bias with one output."""
    return lambda rows, weight, bias: (layer_norm(rows, weight.shape, weight, bias, eps),)


def inputs(*leading: int, width: int = 4, dtype: torch.dtype = torch.float64):
    return normal(*leading, width, dtype=dtype), normal(width, seed=1, dtype=dtype), normal(width, seed=2, dtype=dtype)


@pytest.mark.parametrize("leading", [(3,), (3, 2), (1, 1, 2)])
def test_against_stock(leading):
    for dtype, bound in ((torch.float64, 1e-13), (torch.float32, 1e-5)):
        arguments = inputs(*leading, dtype=dtype)
        fused, stock = (three_derivatives(by(function), arguments) for function in (fused_layer_norm(STOCK), STOCK))
        assert torch.equal(fused[0][0], stock[0][0])
        assert all(map(torch.equal, fused[1], stock[1]))
        assert largest_error(fused, stock) < bound


def test_control_another_eps_fails_the_comparison():
    arguments = inputs(3)
    fused = three_derivatives(by(fused_layer_norm(STOCK)), arguments)
    assert largest_error(fused, three_derivatives(by(STOCK, 2 * EPS), arguments)) > 1e-4


def test_against_differences():
    assert torch.autograd.gradcheck(by(fused_layer_norm(STOCK)), inputs(3, 2))
    assert torch.autograd.gradgradcheck(by(fused_layer_norm(STOCK)), inputs(3, 2))


def test_cases_of_the_stock_function():
    called = []

    def counted(*arguments):
        called.append(1)
        return STOCK(*arguments)

    fused = fused_layer_norm(counted)
    rows, weight, bias = inputs(2)
    fused(rows, (4,))
    fused(rows, (4,), weight)
    fused(rows, (2, 4), weight.expand(2, 4), bias.expand(2, 4))
    fused(rows.bfloat16(), (4,), weight.bfloat16(), bias.bfloat16())
    with torch.no_grad():
        fused(rows, (4,), weight, bias)
    assert len(called) == 5
    fused(rows, (4,), weight, bias)
    assert len(called) == 5
