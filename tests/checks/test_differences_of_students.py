"""Our derivatives against differences of whole unrolls, of single updates and of rules, with controls."""

import copy
from dataclasses import dataclass, replace

import pytest
import torch

from fairseq_l2t.checks.differences import (
    compare_adjoint,
    compare_hypergradient,
    compare_update,
    spread,
    unit_direction,
)
from fairseq_l2t.core import Teacher, hypergradient, unroll
from fairseq_l2t.testing.hypergradient_check import HalfClipping, dev_gradient, dev_measure
from fairseq_l2t.testing.toy_student import MODELS, Perceptron, PlainScaling, Scaled, ToyStudent
from fairseq_l2t.unroll.adjoint_sweep import pull_back
from fairseq_l2t.unroll.update_rules import NAG, SGD, Adagrad, Adam, Clipping, StepSize

DETECTED = 1e-3
"""Smallest relative error of a wrong derivative at which the comparison is meaningful."""

RULES = {
    "sgd": SGD(),
    "momentum_decay": SGD(0.9, 0.02),
    "nag": NAG(0.8),
    "nag_decay": NAG(0.8, 0.02),
    "adam": Adam(0.9, 0.98, 1e-8),
    "adam_decay": Adam(0.9, 0.98, 1e-8, 0.02),
    "adagrad": Adagrad(),
    "adagrad_decay": Adagrad(0.02),
}


def trajectory_of(model: str, rule, **options):
    """Return a trajectory of three updates under a teacher whose coefficients differ."""
    student = ToyStudent(model, rule, **options)
    return unroll(student, spread(Teacher.for_student(student, keys=3), 5), 3)


def compared(trajectory, ours, name: str):
    """Compare our hypergradient for the teacher's tensor ``name`` with differences, along a random direction."""
    student = trajectory.student
    along = unit_direction(dict(trajectory.teacher.named_parameters())[name], 7)
    return compare_hypergradient(
        trajectory, ours, lambda: float(dev_measure(student, student.omega).detach()), name, along
    )


@pytest.mark.parametrize("name", ["values", "queries"])
@pytest.mark.parametrize(
    ("model", "rule"),
    [
        ("relu", "sgd"),
        ("tanh", "adam"),
        ("tied", "nag_decay"),
        ("weight_norm", "momentum_decay"),
        ("scaled", "adagrad_decay"),
        ("recurrent", "nag"),
    ],
)
def test_hypergradient(model, rule, name):
    trajectory = trajectory_of(model, RULES[rule], max_norm=0.2)
    ours = hypergradient(trajectory, dev_gradient(trajectory.student))
    found = compared(trajectory, ours, name)
    assert found.error < 1e-7
    assert found.resolution < 1e-6
    assert replace(found, ours=1.01 * found.ours).error > DETECTED


def test_control_hypergradient_of_another_rule_fails_the_comparison():
    trajectory = trajectory_of("tanh", RULES["momentum_decay"])
    student = trajectory.student
    grad_omega, right = dev_gradient(student), student.rule
    student.rule = SGD(0.8, 0.02)
    ours = hypergradient(trajectory, grad_omega)
    student.rule = right
    assert compared(trajectory, ours, "values").error > DETECTED
    ours = hypergradient(trajectory, grad_omega)
    assert compared(trajectory, ours, "values").error < 1e-7
    assert compared(trajectory, {name: 1.01 * part for name, part in ours.items()}, "values").error > DETECTED


def test_comparing_a_hypergradient_changes_nothing():
    trajectory = trajectory_of("tanh", RULES["adam"])
    student, ours = trajectory.student, hypergradient(trajectory, dev_gradient(trajectory.student))
    before = snapshot(student)
    theta = copy.deepcopy(trajectory.teacher.state_dict())
    compared(trajectory, ours, "values")
    assert snapshot(student) == before
    assert all(torch.equal(part, theta[name]) for name, part in trajectory.teacher.state_dict().items())

    def failing() -> float:
        raise KeyError

    with pytest.raises(KeyError):
        compare_hypergradient(trajectory, ours, failing, "values", unit_direction(trajectory.teacher.values, 7))
    assert snapshot(student) == before


def snapshot(student: ToyStudent):
    """Return everything that a comparison must not change, in a form that compares by value."""
    vectors = [vector.tolist() for vector in (student.omega, *student.buffers, torch.get_rng_state())]
    return vectors, student.update, student.state.state_dict()


def confined(student: ToyStudent) -> dict[str, torch.Tensor]:
    """Return a random cotangent of the gradient, and its parts for the parameters below and above the middle."""
    whole = unit_direction(student.omega, 11)
    above = torch.cat(
        [
            torch.full((size,), float(name.startswith("output")), dtype=whole.dtype)
            for name, size in zip(student.parameters.names, student.parameters.sizes, strict=True)
        ]
    )
    return {"whole": whole, "above": whole * above, "below": whole * (1 - above)}


@pytest.mark.parametrize(
    ("cross_entropy_updates", "along"), [(0, "parameters"), (0, "coefficients"), (2, "parameters")]
)
@pytest.mark.parametrize("model", MODELS)
def test_update(model, cross_entropy_updates, along):
    trajectory = trajectory_of(model, SGD(), cross_entropy_updates=cross_entropy_updates)
    student, step = trajectory.student, trajectory.steps[1]
    found = compare_update(student, step, confined(student), seed=1, along=along)
    assert list(found) == ["whole", "above", "below"]
    for one in found.values():
        assert one.error < 1e-8
        assert one.ours != 0
    assert found["above"].ours + found["below"].ours == pytest.approx(found["whole"].ours, rel=1e-9)


def test_comparing_an_update_changes_only_the_parameters_to_those_of_the_step():
    trajectory = trajectory_of("tanh", RULES["adam"])
    student, step = trajectory.student, trajectory.steps[1]
    student.set_omega(step.omega)
    before = snapshot(student)
    student.set_omega(trajectory.steps[2].omega)
    compare_update(student, step, confined(student), seed=1)
    assert snapshot(student) == before


def test_plain_gradient_scaling_fails_the_comparison_in_every_part(monkeypatch):
    monkeypatch.setitem(MODELS, "plain_scaling", lambda: Scaled(PlainScaling))
    trajectory = trajectory_of("plain_scaling", SGD())
    student = trajectory.student
    found = compare_update(student, trajectory.steps[1], confined(student), seed=1)
    assert all(one.error > DETECTED for one in found.values())
    assert all(one.resolution < 1e-6 for one in found.values())


class _ForgetfulTanh(torch.autograd.Function):
    """tanh with a backward that is not differentiated: correct gradient, wrong second derivative."""

    @staticmethod
    def forward(ctx, value):
        result = value.tanh()
        ctx.save_for_backward(result.clone())
        return result

    @staticmethod
    def backward(ctx, cotangent):
        (result,) = ctx.saved_tensors
        return cotangent * (1 - result.detach() ** 2)


class _Forgetful(torch.nn.Module):
    def forward(self, value):
        return _ForgetfulTanh.apply(value)


def test_a_cotangent_of_some_parameters_locates_the_wrong_part(monkeypatch):
    # Gradients above the activation depend on its value only; those below also on its slope.
    monkeypatch.setitem(MODELS, "forgetful", lambda: Perceptron(_Forgetful()))
    trajectory = trajectory_of("forgetful", SGD())
    student = trajectory.student
    found = compare_update(student, trajectory.steps[1], confined(student), seed=1)
    assert found["above"].error < 1e-8
    assert found["below"].error > DETECTED
    assert found["whole"].error > DETECTED


def test_the_cotangent_of_the_coefficients_is_compared(monkeypatch):
    trajectory = trajectory_of("tanh", SGD())
    student, step = trajectory.student, trajectory.steps[1]

    def without_coefficients(*arguments):
        return [(omega_bar, torch.zeros_like(phi_bar)) for omega_bar, phi_bar in pull_back(*arguments)]

    monkeypatch.setattr("fairseq_l2t.checks.differences.pull_back", without_coefficients)
    found = {
        along: compare_update(student, step, confined(student), seed=1, along=along)["whole"]
        for along in ("parameters", "coefficients")
    }
    assert found["coefficients"].error > DETECTED > 1e-8 > found["parameters"].error


SIZES = [StepSize(0.3, 0.3, 1), StepSize(0.2, 0.5, 4)]
CLIPPINGS = {"off": Clipping(), "on": Clipping(0.2), "by_parameter": Clipping(0.2, (5, 20, 7))}


@pytest.mark.parametrize("clipping", CLIPPINGS)
@pytest.mark.parametrize("rule", RULES)
def test_adjoint(rule, clipping):
    for size in SIZES:
        for seed in (1, 2):
            assert compare_adjoint(RULES[rule], CLIPPINGS[clipping], size, seed) < 1e-8


@dataclass(frozen=True)
class _WithoutMemory:
    """A rule whose adjoint ignores the buffers."""

    right: object

    @property
    def buffer_count(self) -> int:
        return self.right.buffer_count

    def apply(self, *arguments):
        return self.right.apply(*arguments)

    def adjoint(self, *arguments):
        omega_bar, buffers_bar, gradient_bar = self.right.adjoint(*arguments)
        return omega_bar, tuple(torch.zeros_like(bar) for bar in buffers_bar), gradient_bar


@pytest.mark.parametrize("rule", [name for name in RULES if name != "sgd"])
def test_control_an_adjoint_without_buffers_fails(rule):
    assert compare_adjoint(_WithoutMemory(RULES[rule]), Clipping(), SIZES[1], 1) > DETECTED


@pytest.mark.parametrize("rule", RULES)
def test_control_an_adjoint_of_clipping_without_its_factor_fails(rule):
    errors = [compare_adjoint(RULES[rule], HalfClipping(0.2), SIZES[1], seed) for seed in range(5)]
    assert max(errors) > DETECTED
    # one seed is enough: no slope dominates that of the gradient
    assert min(errors) > 1e-5
