"""Differences of gradients see that a padding row which the output layer shares is read by padded positions."""

import pytest

from fairseq_l2t.core import unroll
from fairseq_l2t.kernels.twice_differentiable import attribute_replaced
from fairseq_l2t.plugin.student.fconv_differences import FConvScaling
from fairseq_l2t.testing.tiny_students import make_student, spread_teacher
from fairseq_l2t.unroll import difference_products as products
from fairseq_l2t.unroll.adjoint_sweep import PRODUCTS, hypergradient_with_adjoint
from fairseq_l2t.unroll.memory.plan import MemoryPlan

PLAIN = {"dynamicconv_tied_left": None, "fconv_tied_left": FConvScaling}
"""What scales the gradient of each student beside padding, and the correction for it."""


def error_of(student, trajectory):
    gradient = student.dev_objective()[1]
    exact = hypergradient_with_adjoint(trajectory, gradient)
    return hypergradient_with_adjoint(trajectory, gradient, PRODUCTS[1]).relative_error(exact)


@pytest.mark.parametrize("family", PLAIN)
def test_padding_rows_are_accounted_for(data_bin, family, monkeypatch):
    for name, value in (("SMALL_ELEMENT_SHARE", 0.0), ("ROUNDING_SHARE", 0.0), ("RELATIVE_DISTANCE", 1e-7)):
        monkeypatch.setattr(products, name, value)
    student = make_student(data_bin, family, "momentum").double()
    errors = {}
    for plan in (MemoryPlan(for_differences=True), None):  # notes that are kept, and notes that are made again
        student.restart(student.seed)
        errors["corrected"] = error_of(student, unroll(student, spread_teacher(student), 4, plan))
        assert errors["corrected"] < 1e-4
    kind = PLAIN[family]
    plain = None if kind is None else kind(student.model.encoder, student.parameters)
    with attribute_replaced(student, "gradient_scaling", plain):
        errors["not corrected"] = error_of(student, unroll(student, spread_teacher(student), 4))
    print(family, errors)
    assert errors["not corrected"] > 5 * errors["corrected"]


def test_noting_leaves_the_update_alone(data_bin):
    """The gradient with notes is the gradient without, to the bit, and so is the student's life."""
    ends = []
    for plan in (None, MemoryPlan(for_differences=True)):
        student = make_student(data_bin, "fconv_tied_left", "adam")
        unroll(student, spread_teacher(student), 3, plan)
        ends.append(student.omega.clone())
    assert ends[0].equal(ends[1])
