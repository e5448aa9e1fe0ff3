"""The hypergradient three ways: ours, plain autograd through the whole unroll, float64 finite differences."""

import math
from contextlib import nullcontext
from functools import partial

import pytest
import torch

from fairseq_l2t.core import LossShape, NonFiniteError, Teacher, Trajectory, hypergradient, student_gradient, unroll
from fairseq_l2t.testing.differentiable_rules import relative_error
from fairseq_l2t.testing.hypergradient_check import (
    HalfClipping,
    dev_gradient,
    dev_measure,
    measured_slope,
    plain_hypergradient,
    random_direction,
    slope_along,
    unrolled,
)
from fairseq_l2t.testing.toy_student import MODELS, UNSEEN, PlainScaling, Scaled, ToyStudent
from fairseq_l2t.unroll.adjoint_sweep import adjoint_sweep, hypergradient_with_adjoint, pull_back
from fairseq_l2t.unroll.update_rules import NAG, SGD, Adagrad, Adam

AUTOGRAD_TOLERANCE = 1e-12
DIFFERENCES_TOLERANCE = 1e-7
DETECTED = 1e-3
"""Smallest relative error of a wrong hypergradient at which the comparison is meaningful."""

RULES = {
    "sgd": SGD(weight_decay=0.02),
    "momentum": SGD(momentum=0.9, weight_decay=0.02),
    "nag": NAG(momentum=0.8, weight_decay=0.02),
    "adam": Adam(0.9, 0.98, 1e-8, weight_decay=0.02),
    "adagrad": Adagrad(weight_decay=0.02),
}
SETTINGS = {
    "plain": {},
    "clipped": {"max_norm": 0.2},
    "warmed_up": {"max_norm": 0.2, "cross_entropy_updates": 2},
    "mixed_one_micro_batch": {"update_freq": 1, "shape": LossShape(scale=30.0, cross_entropy_mix=0.4)},
    # Adam's first updates divide by gradients too small for differences.
    "by_sentence": {
        "max_norm": 0.2,
        "cross_entropy_updates": 2,
        "shape": LossShape(scale=30.0, cross_entropy_mix=0.1, level="sentence"),
    },
}


def difference_error(make, trajectory, ours, seed: int) -> float:
    """Return the relative error of ``ours`` against finite differences along one direction."""
    direction = random_direction(trajectory.teacher, seed)
    expected = measured_slope(make, trajectory, direction)
    return abs(slope_along(ours, direction) - expected) / abs(expected)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("setting", SETTINGS)
def test_three_ways(setting, model, rule):
    make = partial(ToyStudent, model, RULES[rule], **SETTINGS[setting])
    trajectory, ours = unrolled(make)
    assert relative_error(ours, plain_hypergradient(trajectory)) < AUTOGRAD_TOLERANCE
    assert difference_error(make, trajectory, ours, seed=0) < DIFFERENCES_TOLERANCE


@pytest.mark.parametrize("model", MODELS)
def test_clipping_was_active_at_every_update(model):
    trajectory, _ = unrolled(partial(ToyStudent, model, max_norm=0.2))
    for step in trajectory.steps:
        trajectory.student.set_omega(step.omega)
        gradient = student_gradient(trajectory.student, step.batch, step.coefficients, step.update)
        assert gradient.norm() > 0.21


@pytest.mark.parametrize("wrong", ["dropout seed", "clipping adjoint", "learning rate", "batch order"])
def test_control_wrong_hypergradients_fail_the_comparison(wrong):
    make = partial(ToyStudent, "tanh", RULES["momentum"], max_norm=0.2)
    trajectory, right = unrolled(make)
    student, grad_omega = trajectory.student, dev_gradient(trajectory.student)
    if wrong == "dropout seed":
        student.seed += 1
    elif wrong == "clipping adjoint":
        student.clipping = HalfClipping(0.2)
    elif wrong == "learning rate":
        student.rule = SGD(momentum=0.8, weight_decay=0.02)
    else:
        batches = [step.batch for step in reversed(trajectory.steps)]
        for step, batch in zip(trajectory.steps, batches, strict=True):
            object.__setattr__(step, "batch", batch)
    ours = hypergradient(trajectory, grad_omega)
    assert relative_error(ours, right) > DETECTED
    # finite differences detect it as well, not only the plain unroll
    trajectory, _ = unrolled(make)
    assert difference_error(make, trajectory, ours, seed=0) > DETECTED


def test_plain_gradient_scaling_fails_the_comparison(monkeypatch):
    # fairseq's GradMultiply under plain double backward is silently wrong.
    monkeypatch.setitem(MODELS, "plain_scaling", lambda: Scaled(PlainScaling))
    make = partial(ToyStudent, "plain_scaling", RULES["sgd"])
    trajectory, ours = unrolled(make)
    assert difference_error(make, trajectory, ours, seed=0) > DETECTED


def test_attention_without_the_context_raises(monkeypatch):
    make = partial(ToyStudent, "recurrent")
    monkeypatch.setattr(ToyStudent, "second_derivatives", nullcontext)
    with pytest.raises(RuntimeError, match="not implemented"):
        unrolled(make)


def test_the_student_does_not_change():
    student = ToyStudent("tanh", RULES["adam"])
    trajectory = unroll(student, Teacher.for_student(student), 3)
    grad_omega = dev_gradient(student)
    omega, buffers, update = student.omega.clone(), [b.clone() for b in student.buffers], student.update
    measures, generator = student.state.state_dict(), torch.get_rng_state()
    first = hypergradient(trajectory, grad_omega)
    assert torch.equal(student.omega, omega)
    assert all(torch.equal(a, b) for a, b in zip(student.buffers, buffers, strict=True))
    assert (student.update, student.state.state_dict()) == (update, measures)
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(parameter.grad is None for parameter in trajectory.teacher.parameters())
    # a second sweep gives the same bits
    second = hypergradient(trajectory, grad_omega)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_names_shapes_and_untouched_words():
    trajectory, ours = unrolled(partial(ToyStudent, "tanh"), steps=2)
    named = dict(trajectory.teacher.named_parameters())
    assert {name: part.shape for name, part in ours.items()} == {n: p.shape for n, p in named.items()}
    # a word in no batch has a coefficient that no update uses
    assert torch.count_nonzero(ours["values"][UNSEEN]) == 0
    assert torch.count_nonzero(ours["values"]) > 0


def test_cross_entropy_alone_has_no_hypergradient():
    trajectory, ours = unrolled(partial(ToyStudent, "tanh", cross_entropy_updates=4))
    assert all(torch.count_nonzero(part) == 0 for part in ours.values())
    _, control = unrolled(partial(ToyStudent, "tanh", cross_entropy_updates=3))
    assert all(torch.count_nonzero(part) > 0 for part in control.values())


@pytest.mark.parametrize("rule", RULES)
def test_float32_is_float64_up_to_rounding(rule):
    # Students are trained in float32. Adam's eps is larger here: with a small one, rounding errors count as gradients.
    rule = Adam(0.9, 0.98, 1e-3) if rule == "adam" else RULES[rule]
    found = {}
    for dtype in (torch.float32, torch.float64):
        _, found[dtype] = unrolled(partial(ToyStudent, "tied", rule, max_norm=0.2, dtype=dtype))
        assert all(part.dtype == dtype for part in found[dtype].values())
    assert 1e-9 < relative_error(found[torch.float32], found[torch.float64]) < 1e-3


def test_norms():
    student = ToyStudent("tanh", SGD())
    trajectory = unroll(student, Teacher.for_student(student), 1)
    grad_omega = dev_gradient(student)
    found = hypergradient_with_adjoint(trajectory, grad_omega)
    assert found.norm == pytest.approx(math.sqrt(sum(float((p * p).sum()) for p in found.theta.values())))
    # one step of SGD: the adjoint at omega_0 is a - lr H a; at lr = 0 it would be a itself
    assert found.adjoint_norm == pytest.approx(float(grad_omega.norm()), rel=0.5)
    assert found.adjoint_norm != float(grad_omega.norm())


def test_wrong_shape_is_refused():
    student = ToyStudent("tanh")
    trajectory = unroll(student, Teacher.for_student(student), 1)
    with pytest.raises(ValueError, match=r"grad_omega: shape \(3,\); expected \(\d+,\)"):
        hypergradient(trajectory, torch.ones(3, dtype=torch.float64))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_bad_adjoint_names_the_update_and_the_parameter(bad):
    student = ToyStudent("tanh")
    trajectory = unroll(student, Teacher.for_student(student), 2)
    omega, grad_omega = student.omega.clone(), torch.zeros_like(student.omega)
    grad_omega[0] = bad
    with pytest.raises(NonFiniteError, match=r"adjoint of student update 1: embedding\.weight is not finite"):
        hypergradient(trajectory, grad_omega)
    assert torch.equal(student.omega, omega)


@pytest.mark.parametrize("rule", RULES)
def test_the_contributions_of_a_sweep(rule):
    student = ToyStudent("tanh", RULES[rule], max_norm=0.2, cross_entropy_updates=1)
    trajectory = unroll(student, Teacher.for_student(student, keys=3), 4)
    grad_omega = dev_gradient(student)
    steps = list(adjoint_sweep(trajectory, grad_omega))
    whole = hypergradient_with_adjoint(trajectory, grad_omega)
    assert [step.update for step in steps] == [3, 2, 1, 0]
    assert [step.theta is None for step in steps] == [False, False, False, True]
    assert float(steps[-1].adjoint.norm()) == whole.adjoint_norm != float(steps[-2].adjoint.norm())
    for name, part in whole.theta.items():
        shares = [step.theta[name] for step in steps[:-1]]
        assert torch.equal(sum(shares), part)
        # the last two contributions are the hypergradient of the last two updates
        short = hypergradient(Trajectory(student, trajectory.teacher, trajectory.steps[2:]), grad_omega)
        assert torch.equal(shares[0] + shares[1], short[name])
        assert not torch.equal(short[name], part)


class Nudged(Teacher):
    """Adds ``nudge`` to all coefficients of its ``at``-th call."""

    at, nudge = 0, 0.0

    def forward(self, state):
        """See `Teacher.forward`."""
        self.at -= 1
        return super().forward(state) + (self.nudge if self.at == -1 else 0.0)


@pytest.mark.parametrize("at", range(3))
def test_a_pull_is_the_derivative_with_respect_to_all_coefficients_of_an_update(at):
    def student_of_four():
        return ToyStudent("tanh", RULES["adam"], cross_entropy_updates=1)

    student = student_of_four()
    trajectory = unroll(student, Teacher.for_student(student, keys=3), 4)
    pulls = hypergradient_with_adjoint(trajectory, dev_gradient(student)).pulls
    assert len(pulls) == 3 and len(set(pulls)) == 3
    measures = []
    for nudge in (1e-5, -1e-5):
        student = student_of_four()
        teacher = Nudged.for_student(student, keys=3)
        teacher.at, teacher.nudge = at, nudge
        unroll(student, teacher, 4)
        measures.append(float(dev_measure(student, student.omega)))
    assert pulls[at] == pytest.approx((measures[0] - measures[1]) / 2e-5, rel=1e-5)


def test_the_sweep_can_end_early():
    student = ToyStudent("tanh", RULES["adam"])
    trajectory = unroll(student, Teacher.for_student(student), 3)
    omega, sweep = student.omega.clone(), adjoint_sweep(trajectory, dev_gradient(student))
    next(sweep)
    assert not torch.equal(student.omega, omega)
    sweep.close()
    assert torch.equal(student.omega, omega)


@pytest.mark.parametrize("model", MODELS)
def test_pull_back_of_several_cotangents_equals_that_of_each(model):
    student = ToyStudent(model)
    step = unroll(student, Teacher.for_student(student), 2).steps[1]
    generator = torch.Generator().manual_seed(8)
    first, second = (torch.randn(step.omega.shape, generator=generator, dtype=torch.float64) for _ in range(2))
    found = list(pull_back(student, step, [first, second, first + second]))
    assert torch.equal(student.omega, step.omega)
    for pulled, cotangent in zip(found, [first, second, first + second], strict=True):
        (alone,) = pull_back(student, step, [cotangent])
        assert all(map(torch.equal, pulled, alone))
    for one, other, both in zip(*found, strict=True):
        torch.testing.assert_close(one + other, both, rtol=1e-12, atol=1e-14)
        assert (one - other).norm() > 0.1 * both.norm()


def test_pull_back_under_cross_entropy_has_no_cotangent_of_coefficients():
    student = ToyStudent("tanh", cross_entropy_updates=1)
    steps = unroll(student, Teacher.for_student(student), 2).steps
    cotangent = torch.ones_like(student.omega)
    assert [next(pull_back(student, step, [cotangent]))[1] is None for step in steps] == [True, False]
