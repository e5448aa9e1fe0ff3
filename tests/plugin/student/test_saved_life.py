"""The life of a fairseq student in a run state, every value and tensor edited: refused in one line, or its own life."""

import pytest
import torch

from fairseq_l2t.plugin.student.saved_life import FairseqStudentValues
from fairseq_l2t.storage.run_state import tensor_differences
from fairseq_l2t.storage.schema import validated
from fairseq_l2t.teaching.saved_tensors import student_tensor_problems
from fairseq_l2t.testing.parity import spread_teacher
from fairseq_l2t.testing.tiny_students import make_student
from fairseq_l2t.unroll.trajectory import advance
from tests.storage.edits import edited_tensors, edited_values


@pytest.fixture(scope="module")
def student(data_bin):
    made = make_student(data_bin, "transformer_tied", "adam")
    advance(made, spread_teacher(made), 3)
    return made


def test_no_edit_of_its_values_is_loaded(student):
    tensors, values = student.state_dict()
    tensors = {name: tensor.clone() for name, tensor in tensors.items()}
    loaded = set()
    for name, changed in edited_values(values):
        try:
            validated(FairseqStudentValues, changed)
            student.load_state_dict(tensors, changed)
            loaded.add(name)
        except ValueError as error:
            assert "\n" not in str(error)
    # Values that nothing here contradicts; those of seed and update are compared with the run's (test_saved_state).
    others = {
        "seed: is 0",
        "update: is 0",
        "update: is 1",
        "previous_lr: is 0",
        "previous_lr: is 1",
        "previous_lr: is 2.5",
    }
    others |= {
        "seed: is 1",
        "position.epoch: is 1",
        "position.iterations_in_epoch: is 0",
        "position.iterations_in_epoch: is 1",
    }
    others |= {f"measures.{name}: is {value}" for name in values["measures"] for value in (0, 1)}
    assert sorted(loaded - others) == []
    student.load_state_dict(tensors, values)
    assert torch.equal(student.omega, tensors["omega"]) and student.update == 3


def test_a_position_beyond_an_epoch_is_named(student):
    tensors, values = student.state_dict()
    beyond = {**values, "position": {"epoch": 1, "iterations_in_epoch": 10**6}}
    with pytest.raises(ValueError, match=r"^position of the life: batch 1000000 of an epoch; expected at most \d+$"):
        student.load_state_dict({name: tensor.clone() for name, tensor in tensors.items()}, beyond)


def test_every_edit_of_its_tensors_is_found(student):
    tensors, _ = student.state_dict()
    for name, changed in edited_tensors(tensors):
        assert list(student_tensor_problems(changed)) or tensor_differences(changed, tensors), name
    assert list(student_tensor_problems(tensors)) == tensor_differences(tensors, tensors) == []
