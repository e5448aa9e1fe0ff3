"""fconv scales gradients: differences of its updates are put right, and would be wrong otherwise."""

import pytest

from fairseq_l2t.core import unroll
from fairseq_l2t.kernels.twice_differentiable import attribute_replaced
from fairseq_l2t.testing.tiny_students import make_student, spread_teacher
from fairseq_l2t.unroll import difference_products as products
from fairseq_l2t.unroll.adjoint_sweep import PRODUCTS, hypergradient_with_adjoint
from fairseq_l2t.unroll.memory.plan import MemoryPlan


def error_of(student, trajectory, radius, monkeypatch):
    for name, value in (("SMALL_ELEMENT_SHARE", 0.0), ("ROUNDING_SHARE", 0.0), ("RELATIVE_DISTANCE", radius)):
        monkeypatch.setattr(products, name, value)
    gradient = student.dev_objective()[1]
    exact = hypergradient_with_adjoint(trajectory, gradient)
    return hypergradient_with_adjoint(trajectory, gradient, PRODUCTS[1]).relative_error(exact)


@pytest.mark.parametrize("family", ["fconv_iwslt", "fconv_tied"])
def test_the_scaling_is_accounted_for(data_bin, family, monkeypatch):
    student = make_student(data_bin, family, "momentum").double()
    trajectory = unroll(student, spread_teacher(student), 3, MemoryPlan(for_differences=True))
    assert error_of(student, trajectory, 1e-7, monkeypatch) < 1e-4
    # made again instead of kept
    whole = unroll(student, spread_teacher(student), 3)
    assert error_of(student, whole, 1e-7, monkeypatch) < 1e-4
    with attribute_replaced(student, "gradient_scaling", None):
        assert error_of(student, trajectory, 1e-7, monkeypatch) > 0.05


def test_noting_leaves_the_update_alone(data_bin):
    """The gradient with notes is the gradient without, to the bit, and so is the student's life."""
    ends = []
    for plan in (None, MemoryPlan(for_differences=True)):
        student = make_student(data_bin, "fconv_iwslt", "adam")
        unroll(student, spread_teacher(student), 3, plan)
        ends.append(student.omega.clone())
    assert ends[0].equal(ends[1])
    assert make_student(data_bin, "transformer", "adam").gradient_scaling is None
