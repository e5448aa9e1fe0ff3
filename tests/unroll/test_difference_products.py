"""Hypergradients from differences of gradients: they converge to the exact one as the step along v decreases."""

import pytest
import torch

from fairseq_l2t.core import Teacher, hypergradient, unroll
from fairseq_l2t.testing.hypergradient_check import dev_gradient
from fairseq_l2t.testing.toy_student import MODELS, ToyStudent
from fairseq_l2t.unroll import difference_products as products
from fairseq_l2t.unroll.adjoint_sweep import PRODUCTS, hypergradient_with_adjoint
from fairseq_l2t.unroll.memory.budget import memory_plan
from fairseq_l2t.unroll.memory.plan import MemoryPlan
from fairseq_l2t.unroll.update_rules import SGD, Adam

RULES = {"momentum": SGD(momentum=0.9, weight_decay=0.02), "adam": Adam(0.9, 0.98, 1e-8, weight_decay=0.02)}
FOR_DIFFERENCES = MemoryPlan(for_differences=True)


def errors(monkeypatch, trajectory, radii):
    """Return the relative error for each distance; no element of v is set to 0."""
    monkeypatch.setattr(products, "SMALL_ELEMENT_SHARE", 0.0)
    monkeypatch.setattr(products, "ROUNDING_SHARE", 0.0)
    grad_omega, found = dev_gradient(trajectory.student), []
    exact = hypergradient_with_adjoint(trajectory, grad_omega)
    for radius in radii:
        monkeypatch.setattr(products, "RELATIVE_DISTANCE", radius)
        found.append(hypergradient_with_adjoint(trajectory, grad_omega, PRODUCTS[1]).relative_error(exact))
    return found


def trajectory_of(model, rule="momentum", plan=FOR_DIFFERENCES, **more):
    student = ToyStudent(model, RULES[rule], max_norm=0.2, cross_entropy_updates=1, **more)
    return unroll(student, Teacher.for_student(student, keys=3, seed=5), 4, plan)


@pytest.mark.parametrize("model", sorted(MODELS.keys() - {"scaled", "relu"}))
def test_the_error_falls_with_the_distance(monkeypatch, model):
    coarse, fine = errors(monkeypatch, trajectory_of(model), (1e-3, 1e-5))
    assert fine < 1e-4
    assert fine < 0.05 * coarse


def test_an_update_that_is_no_gradient_is_wrong_at_any_distance(monkeypatch):
    """The control: the toy student scales a gradient and has no `GradientScaling`."""
    coarse, fine = errors(monkeypatch, trajectory_of("scaled"), (1e-3, 1e-6))
    assert min(coarse, fine) > 1e-2


@pytest.mark.parametrize("rule", RULES)
def test_saved_and_recomputed_gradients_agree(rule):
    kept = trajectory_of("tanh", rule)
    grad_omega = dev_gradient(kept.student)
    expected = hypergradient(kept, grad_omega, PRODUCTS[1])
    for plan in (None, MemoryPlan(), memory_plan(2**30)):
        found = hypergradient(trajectory_of("tanh", rule, plan), grad_omega, PRODUCTS[1])
        assert all(torch.equal(found[name], part) for name, part in expected.items())
    exact = hypergradient(kept, grad_omega)
    assert not torch.equal(exact["values"], expected["values"])


def test_cotangents_of_rounding_errors_are_0():
    student = ToyStudent("tied")
    gradient = torch.ones_like(student.omega)
    gradient[3], gradient[7] = 0.0, 1e-3
    last = student.parameters.split(gradient)[-1]
    last.fill_(1e-7)
    kept = products._without_rounding_errors(student, gradient, torch.ones_like(gradient))
    expected = torch.ones_like(gradient)
    expected[3] = expected[7] = 0.0
    student.parameters.split(expected)[-1].fill_(0.0)
    assert torch.equal(kept, expected)


def test_a_cotangent_of_0_has_a_product_of_0():
    trajectory = trajectory_of("tanh")
    found = hypergradient_with_adjoint(trajectory, torch.zeros_like(trajectory.student.omega), PRODUCTS[1])
    assert found.norm == found.adjoint_norm == 0


def test_an_unknown_product_is_refused():
    trajectory = trajectory_of("tanh")
    with pytest.raises(ValueError, match="--hvp: darts; expected one of exact, finite-difference"):
        hypergradient(trajectory, trajectory.student.omega, "darts")


def test_relative_error():
    exact = hypergradient_with_adjoint(trajectory_of("tanh"), torch.ones_like(ToyStudent("tanh").omega))
    assert exact.relative_error(exact) == 0
    double = type(exact)({name: 2 * part for name, part in exact.theta.items()}, 0.0)
    assert double.relative_error(exact) == pytest.approx(1)
