"""Targets padded on the left: the padding row of an embedding is read, and moves where the output layer shares it."""

import pytest
import torch

from fairseq_l2t.checks.differences import compare_update
from fairseq_l2t.core import unroll
from fairseq_l2t.kernels import twice_differentiable
from fairseq_l2t.kernels.twice_differentiable import attribute_replaced
from fairseq_l2t.plugin.doctor.doctor import DoctorError, quick_check
from fairseq_l2t.plugin.doctor.examined_student import ExaminedStudent
from fairseq_l2t.testing.tiny_students import make_student, spread_teacher

EXACT, DETECTED = 1e-8, 1e-4

FAMILIES = [
    "lstm_left",
    "fconv_tied_left",
    "lightconv_tied_left",
    *(
        pytest.param(family, marks=pytest.mark.slow)
        for family in ("lstm_tied_left", "lstm_bidirectional_left", "dynamicconv_tied_left")
    ),
]


def stock_embedding():
    """Return a context without the corrected embedding: autograd takes the padding row for a constant."""
    return attribute_replaced(twice_differentiable, "_embedding", torch.nn.functional.embedding)


def error_of_second_derivatives(data_bin, family):
    """Return the relative error of ``J^T v`` along a random direction, at one update with padding."""
    student = make_student(data_bin, family).double()
    examined = ExaminedStudent(student, pairs=3, learning_rate=0.01)
    (step,) = unroll(examined, spread_teacher(student), 1).steps
    padding = student.task.target_dictionary.pad()
    assert step.batch[0]["net_input"]["prev_output_tokens"][:, 0].eq(padding).any()
    vector = torch.randn(len(step.omega), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return compare_update(examined, step, {"all": vector}, seed=1, tolerance=1e-9, shrink=4.0)["all"].error


@pytest.mark.parametrize("family", FAMILIES)
def test_second_derivatives(data_bin, family):
    assert error_of_second_derivatives(data_bin, family) < EXACT
    with stock_embedding():
        assert error_of_second_derivatives(data_bin, family) > DETECTED


def test_padding_is_masked_in_a_transformer(data_bin):
    """Its attention excludes padded positions, so that its derivatives never were wrong."""
    for_all = error_of_second_derivatives(data_bin, "transformer_tied_left")
    assert for_all < EXACT
    with stock_embedding():
        assert error_of_second_derivatives(data_bin, "transformer_tied_left") == for_all


@pytest.mark.parametrize("seed", ["3", "4"])
def test_the_quick_check_sees_padding(data_bin, seed):
    student = make_student(data_bin, "fconv_tied_left", "adam", "--seed", seed)
    with stock_embedding(), pytest.raises(DoctorError, match="second derivatives, all .* gradient of the dev measure"):
        quick_check(student)
    quick_check(student)
