"""The best temperature: closed forms, limits, and independence of confidence."""

import math

import pytest
import torch
from torch import nn

from fairseq_l2t.objectives import best_inverse_temperature, calibrated_perplexity, inverse_perplexity
from fairseq_l2t.testing.hypergradient_check import five_point_slope
from fairseq_l2t.unroll.flat_parameters import FlatParameters


class TableStudent:
    """A table of scores of each entry at each token; the part of `objectives.DevStudent` for references."""

    def __init__(self, logits, targets):
        self.logits = nn.Parameter(logits.double())
        self.parameters = FlatParameters([("logits", self.logits)])
        self.omega = self.parameters.buffer
        self.targets = targets

    def dev_chunks(self, pairs):
        yield from ([pair] for pair in pairs)

    def reference_distributions(self, pairs):
        targets = self.targets[pairs]
        return self.logits[pairs].log_softmax(-1), targets.clamp(min=0), targets >= 0

    def reference_log_probs(self, pairs, inverse_temperature=1.0):
        log_probs, targets, keep = self.reference_distributions(pairs)
        scaled = (inverse_temperature * log_probs).log_softmax(-1)
        return scaled.gather(-1, targets.unsqueeze(-1)).squeeze(-1), keep


def random_student(seed=0):
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(5, (4, 3), generator=generator)
    targets[1, 2] = targets[3, 1] = -1  # padding
    logits = torch.randn(4, 3, 5, generator=generator)
    logits.scatter_add_(-1, targets.clamp(min=0).unsqueeze(-1), torch.full((4, 3, 1), 0.8))
    return TableStudent(logits, targets)


PAIRS = [0, 1, 2, 3]


def test_closed_form():
    # Two entries, logits (a, 0), the first right in 3 tokens of 4: at the best b, sigmoid(b a) = 3/4.
    student = TableStudent(torch.tensor([2.0, 0.0]).expand(1, 4, 2).clone(), torch.tensor([[0, 0, 0, 1]]))
    assert best_inverse_temperature(student, [0]) == pytest.approx(math.log(3) / 2, rel=1e-8)
    expected = math.exp((3 * math.log(3 / 4) + math.log(1 / 4)) / 4)
    assert calibrated_perplexity(student, [0]).value == pytest.approx(expected, rel=1e-12)
    assert inverse_perplexity(student, [0]).value < expected - 0.01


@pytest.mark.parametrize("scale", [0.1, 7.0])
def test_confidence_has_no_effect(scale):
    student, other = random_student(), random_student()
    with torch.no_grad():
        other.logits.mul_(scale)
    expected = calibrated_perplexity(student, PAIRS)
    found = calibrated_perplexity(other, PAIRS)
    assert found.value == pytest.approx(expected.value, rel=1e-10)
    assert torch.allclose(found.gradient * scale, expected.gradient, rtol=1e-6, atol=1e-12)
    # so that the gradient along the logits themselves is 0
    along = torch.dot(expected.gradient, student.omega) / (expected.gradient.norm() * student.omega.norm())
    assert abs(float(along)) < 1e-7
    plain = [inverse_perplexity(one, PAIRS) for one in (student, other)]
    assert plain[0].value != pytest.approx(plain[1].value, rel=1e-3)
    assert abs(float(torch.dot(plain[1].gradient, other.omega))) > 1e-3 * float(plain[1].gradient.norm())


def test_gradient_against_differences():
    student = random_student(1)
    start = student.omega.clone()
    direction = torch.randn(len(start), generator=torch.Generator().manual_seed(3), dtype=start.dtype)
    gradient = calibrated_perplexity(student, PAIRS).gradient

    def at(distance):
        student.parameters.set(start + distance * direction)
        return calibrated_perplexity(student, PAIRS).value

    assert float(gradient @ direction) == pytest.approx(five_point_slope(at, 1e-3), rel=1e-8)


@pytest.mark.parametrize(("logits", "expected"), [([9.0, 0.0], 1.0), ([0.0, 9.0], 0.465), ([1.0, 1.0], 0.5)])
def test_students_without_a_best_temperature(logits, expected):
    """Always right: a measure of 1; always wrong: that of the lowest confidence in the range; equal scores: 1/2."""
    student = TableStudent(torch.tensor(logits).expand(1, 2, 2).clone(), torch.zeros(1, 2, dtype=torch.long))
    assert calibrated_perplexity(student, [0]).value == pytest.approx(expected, abs=1e-3)
    assert 1 / 64 <= best_inverse_temperature(student, [0]) <= 64


def test_impossible_entries_and_nan():
    logits = torch.tensor([[[2.0, 0.0, -math.inf]] * 4])
    student = TableStudent(logits, torch.tensor([[0, 0, 0, 1]]))
    assert best_inverse_temperature(student, [0]) == pytest.approx(math.log(3) / 2, rel=1e-8)
    broken = TableStudent(torch.full((1, 2, 2), math.nan), torch.zeros(1, 2, dtype=torch.long))
    assert math.isnan(calibrated_perplexity(broken, [0]).value)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_search_takes_few_forward_passes(dtype):
    """Rounding errors do not widen the interval again."""
    looks = []

    class Counted(TableStudent):
        def reference_distributions(self, pairs):
            log_probs, targets, keep = super().reference_distributions(pairs)
            looks.append(pairs)
            return log_probs.to(dtype), targets, keep

    for seed in range(20):
        student, looks[:] = random_student(seed), []
        student.__class__ = Counted
        found = best_inverse_temperature(student, PAIRS)
        assert len(looks) <= 10 * len(PAIRS)
        assert found == pytest.approx(best_inverse_temperature(random_student(seed), PAIRS), rel=1e-4)


def test_no_pairs():
    with pytest.raises(ValueError, match="pairs: none"):
        calibrated_perplexity(random_student(), [])
