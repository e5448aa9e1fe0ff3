"""Rules on slices in place: the same bits as on whole vectors."""

from dataclasses import replace

import pytest
import torch

from fairseq_l2t.unroll.in_place_updates import SLICE_ELEMENTS, adjoint_in_place, apply_in_place
from fairseq_l2t.unroll.piecewise_rules import PiecewiseRule, RunningAverage
from fairseq_l2t.unroll.update_rules import NAG, SGD, Adagrad, Adam, StepSize

SIZE = StepSize(0.2, 0.2, 3)
LENGTHS = {"short": 8, "two slices": SLICE_ELEMENTS + 7}
RULES = {"sgd": SGD(0.9, 0.01), "nag": NAG(0.9, 0.01), "adam": Adam(eps=1e-3), "adagrad": Adagrad(0.01)}


def rule_of(inner, length, pieces):
    return PiecewiseRule(((length - 3, inner), (3, RunningAverage(0.1)))) if pieces else inner


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("pieces", [False, True])
@pytest.mark.parametrize("length", LENGTHS.values(), ids=LENGTHS)
@pytest.mark.parametrize("inner", RULES.values(), ids=RULES)
def test_in_place_gives_the_same_bits(inner, length, pieces, dtype):
    rule, count = rule_of(inner, length, pieces), inner.buffer_count
    generator = torch.Generator().manual_seed(4)
    # Second moments are never negative.
    drawn = [torch.rand(length, generator=generator, dtype=dtype) + 0.1 for _ in range(3 + 2 * count)]
    omega, gradient, omega_bar, *rest = drawn
    buffers, buffers_bar = tuple(rest[:count]), tuple(rest[count:])
    moved, moments = rule.apply(omega, buffers, gradient, SIZE)
    other, _ = rule.apply(omega, buffers, gradient, replace(SIZE, lr=0.3))
    expected = rule.adjoint(omega, buffers, gradient, SIZE, omega_bar, buffers_bar)
    gradient_bar = adjoint_in_place(rule, omega, buffers, gradient, SIZE, omega_bar, buffers_bar)
    assert torch.equal(gradient_bar, expected[2]) and torch.equal(omega_bar, expected[0])
    assert all(map(torch.equal, buffers_bar, expected[1]))
    apply_in_place(rule, omega, buffers, gradient, SIZE)
    assert torch.equal(omega, moved) and all(map(torch.equal, buffers, moments))
    assert not torch.equal(omega, other)  # the control: another learning rate
