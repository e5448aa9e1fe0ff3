"""The examined student: small updates by declared parameters, of the very student it examines."""

import pytest
import torch

from fairseq_l2t.core import unroll
from fairseq_l2t.plugin.doctor.examined_student import ExaminedStudent
from fairseq_l2t.testing.tiny_students import make_student, spread_teacher

PAIRS, RATE = 3, 0.05


@pytest.fixture
def student(data_bin):
    """A student with warm-up, two micro-batches an update and one update of cross-entropy."""
    return make_student(data_bin, "fconv", "adam")


def test_updates_are_small_and_under_the_teacher(student):
    steps = unroll(ExaminedStudent(student, pairs=PAIRS, learning_rate=RATE), spread_teacher(student), 2).steps
    assert [[len(sample["id"]) for sample in step.batch] for step in steps] == [[PAIRS], [PAIRS]]
    assert [(step.size.lr, step.size.previous_lr, step.size.count) for step in steps] == [
        (RATE, RATE, 1),
        (RATE, RATE, 2),
    ]
    assert all(step.coefficients is not None for step in steps)
    # The control: the student's own updates.
    student.restart(student.seed)
    own = unroll(student, spread_teacher(student), 2).steps
    assert [[len(sample["id"]) for sample in step.batch] for step in own] == [[8, 8], [8, 8]]
    assert own[0].size.lr != own[1].size.lr and own[0].coefficients is None


@pytest.mark.parametrize("seed", range(1, 5))
def test_the_pairs_differ_in_length(student, seed):
    student.restart(seed)
    (found,) = ExaminedStudent(student, pairs=PAIRS, learning_rate=RATE).next_batch()
    student.restart(seed)
    real = student.next_batch()[0]["id"].tolist()
    assert real[0] in found["id"].tolist() and len(found["id"]) == PAIRS
    padding = student.task.target_dictionary.pad()
    assert found["net_input"]["src_tokens"].eq(padding).any() and found["target"].eq(padding).any()


def test_it_is_the_student_that_moves(student):
    examined = ExaminedStudent(student, pairs=PAIRS, learning_rate=RATE)
    start = student.omega.clone()
    unroll(examined, spread_teacher(student), 2)
    assert student.update == examined.update == 2
    assert examined.omega is student.omega and not torch.equal(student.omega, start)
    # A new life has another vector, and the examined student has it too.
    student.to_dtype(torch.float64)
    assert examined.omega is student.omega and examined.omega.dtype == torch.float64
    assert examined.parameters is student.parameters and examined.update == 0


@pytest.mark.parametrize(
    ("optimizer", "is_settled"), [("adam", True), ("adagrad", True), ("nag", False), ("sgd", False)]
)
def test_settling(data_bin, optimizer, is_settled):
    student = make_student(data_bin, "fconv", optimizer)
    ExaminedStudent(student, pairs=PAIRS, learning_rate=RATE).settle()
    assert bool(student.buffers[-1].gt(0).all()) == is_settled
    assert not any(bool(buffer.any()) for buffer in student.buffers[:-1])
