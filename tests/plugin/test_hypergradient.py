"""The hypergradient of fairseq students three ways: ours, plain autograd through the unroll, finite differences.

Float64 throughout, with dropout, clipping, a learning-rate schedule, two micro-batches an update and one warm-up
update of cross-entropy.
"""

import copy
from contextlib import contextmanager

import fairseq.models.fconv
import pytest
import torch
from torch.func import functional_call

from benchmarks.tiny import make_student, spread_teacher
from fairseq_l2t.core import hypergradient, student_gradient, unroll
from fairseq_l2t.core.twice_differentiable import (
    ScaledGradient,
    attribute_replaced,
    outer_gradient,
    twice_differentiable,
)
from tests.core.hypergradient_check import differentiable_clipping, differentiable_rule, relative_error
from tests.core.toy_student import RecordedState

STEPS = 3
SEED = 3
TOLERANCE = 1e-6
AUTOGRAD_TOLERANCE = 1e-9
DETECTED = 1e-3
"""A wrong hypergradient must be at least this far off for the comparison to be worth anything."""

CASES = [
    ("transformer", "momentum"),
    ("transformer_tied", "adam"),
    ("transformer_pre_norm", "nag"),
    ("lstm", "adam"),
    ("lstm_bidirectional", "momentum"),
    ("lstm_wiseman", "nag"),
    ("fconv", "adam"),
    ("fconv_iwslt", "nag"),
    ("fconv_tied", "momentum"),
]

STEP_SIZES = {"transformer": (1e-4, 2e-5, 4e-6), "lstm": (1e-3,), "fconv": (1e-4,)}
"""Distances h of central differences, by family. They err by h^2 times the third derivative plus the rounding of the
measure over h. Where a ReLU of the Transformer has its kink within h, the update itself jumps: there, two distances
have to agree."""

RESOLVED = 1e-7
"""Largest share of the slope that rounding of the measure may make up for a difference to count as resolved."""

AGREEMENT = 5e-7
"""Largest relative difference of the slopes found with two distances."""


def trajectory_of(data_bin, family, optimizer, *more):
    """Return a trajectory of a float64 student and the gradient of the dev measure at its end."""
    student = make_student(data_bin, family, optimizer, *more).double()
    trajectory = unroll(student, spread_teacher(student), STEPS)
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


def every_use(student, omega):
    """Return the parts of ``omega`` (n,) under every name a parameter is used by, each module once.

    torch.func.functional_call, left to tie weights itself, does not put back the embedding of a *module* that has two
    names (``--share-all-embeddings``): it would keep the graph of an unroll that is over.
    """
    parts = student.parameters.split(omega)
    part_of = {id(parameter): part for parameter, part in zip(student.parameters.parameters, parts, strict=True)}
    return {
        f"{path}.{key}": part_of[id(parameter)]
        for path, module in student.model.named_modules()
        for key, parameter in module._parameters.items()
        if id(parameter) in part_of
    }


def target_log_probs(student, omega, sample):
    """Return log p of the real target tokens (tokens,) as a differentiable function of ``omega`` (n,)."""
    with student._precision():
        named = every_use(student, omega)
        output = functional_call(student.model, named, (), sample["net_input"], tie_weights=False)
        log_probs = student.model.get_normalized_probs(output, log_probs=True)
    target = sample["target"]
    keep = target.ne(student.task.target_dictionary.pad())
    return log_probs.gather(-1, target.unsqueeze(-1)).squeeze(-1)[keep], target[keep]


def plain_gradient(student, omega, step, phi):
    """Return the gradient (n,) of one update's loss per token, with its graph."""
    total, tokens, scale = 0.0, 0, student.options.loss_shape.scale
    student.model.train()
    with student.replay(step.update):
        for sample in step.batch:
            log_probs, targets = target_log_probs(student, omega, sample)
            loss = -log_probs if phi is None else -scale / (1 + torch.exp(-phi[targets] * log_probs))
            total, tokens = total + loss.sum(), tokens + len(targets)
    return torch.autograd.grad(total, omega, create_graph=True)[0] / tokens


def plain_hypergradient(trajectory):
    """Return the hypergradient by one backward pass through a second, functional unroll from the same start.

    fconv's gradient scaling is the mended node in both: that the node is right, finite differences tell.
    """
    student, teacher = trajectory.student, trajectory.teacher
    first = trajectory.steps[0]
    omega, buffers = first.omega.clone().requires_grad_(), first.buffers
    with student.second_derivatives():
        for step in trajectory.steps:
            phi = None if step.state is None else teacher(step.state)
            gradient = plain_gradient(student, omega, step, phi)
            gradient = differentiable_clipping(gradient, student.clipping.max_norm)
            omega, buffers = differentiable_rule(student.rule, omega, buffers, gradient, step.size)
        student.model.eval()
        pairs = student.dev.teaching[: student.options.namespace.dev_batch]
        log_probs, _ = target_log_probs(student, omega, student.dev.sample(pairs))
        with outer_gradient():
            parts = torch.autograd.grad(log_probs.exp().mean(), list(teacher.parameters()))
    return dict(zip((name for name, _ in teacher.named_parameters()), parts, strict=True))


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
