"""Rules of parts of the flat vector: against separate parts, autograd, and finite differences."""

import pytest
import torch

from fairseq_l2t.unroll.piecewise_rules import PiecewiseRule, RunningAverage, pieces
from fairseq_l2t.unroll.update_rules import SGD, Adam, StepSize

WEIGHTS, STATISTICS = 5, 3
SIZE = StepSize(0.2, 0.2, 3)
RULES = {"sgd": SGD(0.9, 0.01), "adam": Adam(eps=1e-3)}


def draw(count, seed):
    generator = torch.Generator().manual_seed(seed)
    # Second moments are never negative.
    return [torch.rand(WEIGHTS + STATISTICS, generator=generator, dtype=torch.float64) + 0.1 for _ in range(count)]


def piecewise(inner, share=0.1):
    return PiecewiseRule(((WEIGHTS, inner), (STATISTICS, RunningAverage(share))))


def flat(omega, buffers):
    return torch.cat([omega, *buffers])


@pytest.mark.parametrize("inner", RULES.values(), ids=RULES)
def test_each_part_follows_its_own_rule(inner):
    omega, gradient, *buffers = draw(2 + inner.buffer_count, 0)
    moved, moments = piecewise(inner).apply(omega, tuple(buffers), gradient, SIZE)
    alone, own = inner.apply(omega[:WEIGHTS], tuple(b[:WEIGHTS] for b in buffers), gradient[:WEIGHTS], SIZE)
    assert torch.equal(moved[:WEIGHTS], alone)
    torch.testing.assert_close(moved[WEIGHTS:], omega[WEIGHTS:] - 0.1 * gradient[WEIGHTS:], rtol=1e-15, atol=0)
    for moment, part, before in zip(moments, own, buffers, strict=True):
        assert torch.equal(moment, torch.cat([part, before[WEIGHTS:]]))
    control, _ = inner.apply(omega, tuple(buffers), gradient, SIZE)
    assert not torch.allclose(moved[WEIGHTS:], control[WEIGHTS:])


@pytest.mark.parametrize("inner", RULES.values(), ids=RULES)
def test_adjoint_against_finite_differences(inner):
    rule = piecewise(inner)
    point, direction, cotangent = (draw(2 + inner.buffer_count, seed) for seed in (1, 2, 3))

    def value(step):
        omega, gradient, *buffers = [p + step * d for p, d in zip(point, direction, strict=True)]
        found = flat(*rule.apply(omega, tuple(buffers), gradient, SIZE))
        return float(found @ flat(cotangent[0], cotangent[2:]))

    omega, gradient, *buffers = point
    omega_bar, buffers_bar, gradient_bar = rule.adjoint(
        omega, tuple(buffers), gradient, SIZE, cotangent[0], tuple(cotangent[2:])
    )
    ours = float(flat(omega_bar, (gradient_bar, *buffers_bar)) @ flat(direction[0], (direction[1], *direction[2:])))
    difference = (value(1e-5) - value(-1e-5)) / 2e-5
    assert ours == pytest.approx(difference, rel=1e-7)
    assert difference != pytest.approx((value(1e-5) - value(0)) / 2e-5, rel=1e-2)  # control: half of it


def test_a_running_average_in_closed_form():
    # Three values 1, 2, 3 from 0 with share 1/2: 0.5, 1.25, 2.125.
    average, rule = torch.zeros(1), RunningAverage(0.5)
    for value in (1.0, 2.0, 3.0):
        average, _ = rule.apply(average, (), average - value, SIZE)
    assert float(average) == 2.125


def test_another_length_is_refused():
    with pytest.raises(ValueError, match="rules for 8 elements; this vector has 9"):
        list(pieces(piecewise(SGD()), 9))
    assert [part for part, _ in pieces(piecewise(SGD()), 8)] == [slice(0, 5), slice(5, 8)]
    assert [part for part, _ in pieces(SGD(), 9)] == [slice(0, 9)]
