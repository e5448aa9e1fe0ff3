"""K updates by our unroll equal K updates by fairseq's own Trainer: the student the teacher sees is the one trained."""

from functools import partial

import pytest
import torch

import fairseq_l2t.plugin.task as task_module
from benchmarks.fairseq_run import run_fairseq
from benchmarks.tiny import FAMILIES, LIFE, OPTIMIZERS, RECIPE, make_student, spread_teacher
from fairseq_l2t.core import Teacher, unroll
from fairseq_l2t.plugin.task import vocabulary_of
from fairseq_l2t.storage import TeacherSettings, load_teacher, save_teacher

UPDATES = 9
"""An epoch of the tiny corpus is 13 batches of 32 pairs, 7 updates; the last of them has one micro-batch."""

L2T = [*LIFE, "--task", "l2t_dlf", "--criterion", "dynamic_teacher_loss", "--teacher-path"]
VALIDATED_AFTER = 4
MORE = ("--batch-size", "32")
TOLERANCE = 1e-6
SINGLE_TOLERANCE = 2e-3
"""In float32 both sides round, in another order: Adam turns a gradient that is mostly rounding into a full step."""


def fairseq_arguments(data_bin, tmp_path, family, optimizer, *more):
    return [
        *(str(data_bin), *FAMILIES[family], *OPTIMIZERS[optimizer], *RECIPE, *MORE),
        *("--save-dir", str(tmp_path / "save"), "--no-progress-bar", "--num-workers", "0", *more),
    ]


def largest_difference(student, parameters):
    """Return the largest difference of a parameter, relative to the norm of the tensor it belongs to."""
    parts = student.parameters.split(student.omega)
    return max(
        float((part - parameters[name]).abs().max() / parameters[name].norm().clamp_min(1e-3))
        for name, part in zip(student.parameters.names, parts, strict=True)
    )


def save(student, teacher, path):
    """Write a teacher file for the life of ``student``."""
    shape = student.options.loss_shape
    settings = TeacherSettings(shape.scale, shape.cross_entropy_mix, 20, student.cross_entropy_updates)
    save_teacher(path, teacher, vocabulary_of(student.task.target_dictionary), settings)


def unroll_and_observe(student, teacher):
    """Make the updates, with a validation on the way, and return every step."""
    steps = unroll(student, teacher, VALIDATED_AFTER).steps
    student.observe_dev(range(60))
    return [*steps, *unroll(student, teacher, UPDATES - VALIDATED_AFTER).steps]


def check_same_run(student, steps, run, tolerance):
    """Check batches, rates and parameters of two runs; return the largest difference of a parameter."""
    assert run.epochs == 2
    assert [[sample["id"].tolist() for sample in step.batch] for step in steps] == run.batches
    assert [step.size.lr for step in steps] == run.rates
    difference = largest_difference(student, run.end)
    assert difference < tolerance
    return difference


CASES = [("transformer_tied", "adam"), ("lstm", "momentum"), ("fconv_iwslt", "nag")]


@pytest.mark.parametrize("double", [True, False], ids=["float64", "float32"])
@pytest.mark.parametrize(("family", "optimizer"), CASES)
def test_cross_entropy(data_bin, tmp_path, family, optimizer, double):
    arguments = fairseq_arguments(data_bin, tmp_path, family, optimizer, "--criterion", "cross_entropy")
    run = run_fairseq(arguments, UPDATES, double=double)
    student = make_student(data_bin, family, optimizer, *MORE, "--cross-entropy-updates", "19")
    student = student.double() if double else student
    assert largest_difference(student, run.start) == 0
    moved = largest_difference(student, run.end)
    steps = unroll(student, Teacher.for_student(student), UPDATES).steps
    difference = check_same_run(student, steps, run, TOLERANCE if double else SINGLE_TOLERANCE)
    print(f"{family} {optimizer}: difference {difference:.1e}, moved {moved:.1e}")
    assert moved > 1e-2


@pytest.mark.parametrize("double", [True, False], ids=["float64", "float32"])
@pytest.mark.parametrize(("family", "optimizer"), CASES)
def test_dynamic_loss(data_bin, tmp_path, monkeypatch, family, optimizer, double):
    student = make_student(data_bin, family, optimizer, *MORE)
    teacher = spread_teacher(student)
    save(student, teacher, tmp_path / "teacher.safetensors")
    seen, dtype = [], torch.float64 if double else torch.float32

    def load_and_watch(*arguments, **options):
        file = load_teacher(*arguments, **options, dtype=dtype)
        file.teacher.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
        return file

    monkeypatch.setattr(task_module, "load_teacher", load_and_watch)
    run = run_fairseq(
        fairseq_arguments(data_bin, tmp_path, family, optimizer, *L2T, str(tmp_path / "teacher.safetensors")),
        UPDATES, double=double, validate_after=VALIDATED_AFTER,
    )  # fmt: skip
    student = student.double() if double else student
    steps = unroll_and_observe(student, teacher.to(dtype))
    difference = check_same_run(student, steps, run, TOLERANCE if double else SINGLE_TOLERANCE)
    closeness = partial(torch.testing.assert_close, rtol=TOLERANCE if double else 1e-4, atol=1e-9)
    assert steps[0].state is None and run.coefficients[0] is None
    closeness(torch.stack([step.state for step in steps[1:]]), torch.stack(seen))
    closeness(torch.stack([step.coefficients for step in steps[1:]]), torch.stack(run.coefficients[1:]))
    print(f"{family} {optimizer}: difference {difference:.1e}")
    # The states do differ from update to update, and so does what is made of them.
    assert (seen[3] - seen[4]).abs().max() > 1e-2


def test_another_seed_and_another_loss_differ(data_bin, tmp_path):
    arguments = fairseq_arguments(data_bin, tmp_path, "fconv", "adam", "--criterion", "cross_entropy")
    run = run_fairseq(arguments, UPDATES, double=True)
    student = make_student(data_bin, "fconv", "adam", *MORE, "--cross-entropy-updates", "19").double()
    teacher = spread_teacher(student)
    student.restart(4)
    steps = unroll(student, teacher, UPDATES).steps
    assert [[sample["id"].tolist() for sample in step.batch] for step in steps] != run.batches
    assert largest_difference(student, run.end) > 1e-2
    student.restart(3)
    student.cross_entropy_updates = 1
    unroll(student, teacher, UPDATES)
    assert largest_difference(student, run.end) > 1e-2
