"""The hypergradient of fairseq students three ways: ours, plain autograd through the unroll, finite differences.

Float64 throughout, with dropout, clipping, a learning-rate schedule, two micro-batches an update and one warm-up
update of cross-entropy.
"""

import copy
from contextlib import contextmanager

import fairseq.models.fconv
import pytest
import torch

from fairseq_l2t.core import hypergradient, student_gradient, unroll
from fairseq_l2t.kernels.twice_differentiable import (
    ScaledGradient,
    attribute_replaced,
    twice_differentiable,
)
from fairseq_l2t.testing.differentiable_rules import relative_error
from fairseq_l2t.testing.plain_autograd import plain_hypergradient
from fairseq_l2t.testing.tiny_students import make_student, spread_teacher
from fairseq_l2t.testing.toy_student import RecordedState

STEPS = 3
SEED = 3
TOLERANCE = 1e-6
AUTOGRAD_TOLERANCE = 1e-9
DETECTED = 1e-3
"""A wrong hypergradient must be at least this far off for the comparison to be worth anything."""

CASES = [("transformer_pre_norm", "nag"), ("lstm_bidirectional", "momentum"), ("fconv_iwslt", "adam")]
"""One of each kind, from a restart; the exactness table has all of them, on recorded batches."""

STEP_SIZES = {"transformer": (1e-4, 2e-5, 4e-6), "lstm": (1e-3,), "fconv": (1e-4,)}
"""Distances h of central differences, by family. They err by h^2 times the third derivative plus the rounding of the
measure over h. Where a ReLU of the Transformer has its kink within h, the update itself jumps: there, two distances
have to agree."""

RESOLVED = 1e-7
"""Largest share of the slope that rounding of the measure may make up for a difference to count as resolved."""

AGREEMENT = 5e-7
"""Largest relative difference of the slopes found with two distances."""


def trajectory_of(data_bin, family, optimizer, *more, form="diagonal"):
    """Return a trajectory of a float64 student and the gradient of the dev measure at its end."""
    student = make_student(data_bin, family, optimizer, *more).double()
    trajectory = unroll(student, spread_teacher(student, form=form), STEPS)
    return trajectory, student.dev_objective("likelihood")[1]


def measured_slope(trajectory, name, direction):
    """Return d measure along ``direction`` of the teacher's tensor ``name``, by real unrolls from a restart."""
    student, states = trajectory.student, [step.state for step in trajectory.steps]

    def measure(distance):
        teacher = copy.deepcopy(trajectory.teacher)
        with torch.no_grad():
            dict(teacher.named_parameters())[name].add_(direction, alpha=distance)
        student.restart(SEED)
        # States are data: they must not move with the teacher.
        with attribute_replaced(student, "state", RecordedState(states)):
            unroll(student, teacher, STEPS)
        return student.dev_objective("likelihood")[0]

    sizes = STEP_SIZES[student.options.namespace.arch.split("_")[0]]
    before = None
    for h in sizes:
        ahead, behind = measure(h), measure(-h)
        slope = (ahead - behind) / (2 * h)
        is_resolved = abs(ahead) * 2.0**-53 / (2 * h) < RESOLVED * abs(slope)
        if is_resolved and (len(sizes) == 1 or (before and abs(slope - before) < AGREEMENT * abs(slope))):
            return slope
        before = slope
    return pytest.fail(f"{name}: no slope could be resolved")


def difference_errors(trajectory, ours):
    """Return, for each tensor of the teacher, the relative error of ``ours`` along a random direction."""
    errors = {}
    for name, part in ours.items():
        direction = torch.randn(part.shape, generator=torch.Generator().manual_seed(1), dtype=part.dtype)
        direction /= direction.norm()
        slope = measured_slope(trajectory, name, direction)
        errors[name] = abs(float((part * direction).sum()) - slope) / abs(slope)
    return errors


@pytest.mark.slow
@pytest.mark.parametrize(("family", "optimizer"), CASES)
def test_three_ways(data_bin, family, optimizer):
    trajectory, grad_omega = trajectory_of(data_bin, family, optimizer)
    ours = hypergradient(trajectory, grad_omega)
    plain = plain_hypergradient(trajectory)
    autograd_error = relative_error(ours, plain)
    errors = difference_errors(trajectory, ours)
    print(f"{family} {optimizer}: autograd {autograd_error:.1e}, differences {max(errors.values()):.1e}")
    assert autograd_error < AUTOGRAD_TOLERANCE
    assert max(errors.values()) < TOLERANCE


@pytest.mark.parametrize("family", ["transformer_tied", "fconv_iwslt"])
def test_three_ways_smoothed(data_bin, family):
    trajectory, grad_omega = trajectory_of(data_bin, family, "adam", form="smoothed")
    ours = hypergradient(trajectory, grad_omega)
    words = trajectory.student.coefficient_count
    assert ours["values"].shape[0] == words + 1 and ours["values"][words].abs().min() > 0
    assert relative_error(ours, plain_hypergradient(trajectory)) < AUTOGRAD_TOLERANCE
    assert max(difference_errors(trajectory, ours).values()) < TOLERANCE
    # Control: without its share in psi, the hypergradient is another.
    blind = {name: part.clone() for name, part in ours.items()}
    blind["values"][words] = 0.0
    assert relative_error(blind, ours) > DETECTED


def test_clipping_is_active(data_bin):
    trajectory, _ = trajectory_of(data_bin, "fconv", "momentum")
    for step in trajectory.steps:
        trajectory.student.set_omega(step.omega)
        gradient = student_gradient(trajectory.student, step.batch, step.coefficients, step.update)
        assert gradient.norm() > 1.1 * trajectory.student.clipping.max_norm


class ForgetfulRule:
    """A rule whose adjoint takes optimizer state for a constant, as plain SGD's would."""

    def __init__(self, rule):
        self.rule = rule

    def adjoint(self, omega, buffers, gradient, size, omega_bar, buffers_bar):
        zeros = tuple(torch.zeros_like(buffer) for buffer in buffers_bar)
        return self.rule.adjoint(omega, buffers, gradient, size, omega_bar, zeros)


@pytest.mark.parametrize("optimizer", ["adam", "nag", "momentum"])
def test_an_adjoint_without_buffers_is_noticed(data_bin, optimizer):
    trajectory, grad_omega = trajectory_of(data_bin, "transformer_tied", optimizer)
    right = plain_hypergradient(trajectory)
    assert relative_error(hypergradient(trajectory, grad_omega), right) < AUTOGRAD_TOLERANCE
    trajectory.student.rule = ForgetfulRule(trajectory.student.rule)
    assert relative_error(hypergradient(trajectory, grad_omega), right) > DETECTED


@contextmanager
def stock_weight_norm():
    """fconv's gradient scaling is mended, its weight normalisation is PyTorch's own."""
    with attribute_replaced(fairseq.models.fconv, "GradMultiply", ScaledGradient):
        yield


def test_stock_fconv_is_noticed(data_bin):
    trajectory, grad_omega = trajectory_of(data_bin, "fconv_iwslt", "adam", "--lr", "0.03")
    right = hypergradient(trajectory, grad_omega)
    # twice_differentiable mends the weight normalisation alone.
    for stock in (twice_differentiable, stock_weight_norm):
        with attribute_replaced(trajectory.student, "second_derivatives", stock):
            wrong = hypergradient(trajectory, grad_omega)
        print(f"{stock.__name__}: {relative_error(wrong, right):.1e} off")
        assert relative_error(wrong, right) > DETECTED
    assert max(difference_errors(trajectory, right).values()) < TOLERANCE
