"""The checks of one student, on small parts of real batches, each with its remedy.

Every check compares the program with an independent result: finite differences of the student's real gradient,
fairseq's own optimizer, or a second run from the same seed.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch

from fairseq_l2t.checks.differences import spread
from fairseq_l2t.loss.teacher import Teacher
from fairseq_l2t.plugin.doctor.examined_student import ExaminedStudent
from fairseq_l2t.plugin.doctor.findings import Check
from fairseq_l2t.plugin.doctor.module_checks import (
    class_checks,
    places_by_owner,
    reached_check,
    second_derivative_checks,
)
from fairseq_l2t.plugin.doctor.optimizer_checks import adjoint_check, update_check
from fairseq_l2t.plugin.doctor.unroll_checks import (
    GENTLER,
    dev_gradient_check,
    dropout_check,
    hypergradient_checks,
    pairs_check,
    short_unroll,
)
from fairseq_l2t.plugin.student.fairseq_student import FairseqStudent
from fairseq_l2t.plugin.student_options import StudentOptions
from fairseq_l2t.unroll.student import NonFiniteError

__all__ = ["Doctor", "DoctorError", "quick_check"]

_PAIRS, _KEYS, _SEED = 2, 3, 0
"""Sentence pairs of an update, keys of the teacher, and seed of the teacher."""


class DoctorError(ValueError):
    """A student with wrong hypergradients; the message names the failed checks."""


class Doctor:
    """The checks of one student.

    Args:
        student: a student at the beginning of its life. After the checks a new life begins, in the student's own dtype.
    """

    def __init__(self, student: FairseqStudent) -> None:
        self._student = student

    def checks(self) -> Iterator[Check]:
        """Yield the finding of every check, one at a time."""
        try:
            yield from self._all_checks()
        except NonFiniteError as error:
            yield Check("finite numbers", False, str(error), GENTLER)

    def quick_checks(self) -> Iterator[Check]:
        """Yield the quick findings: the optimizer, second derivatives at one update, the gradient of the measure."""
        student = self._student
        yield update_check(student)
        try:
            student.to_dtype(torch.float64)
            examined = self._examined()
            step = short_unroll(examined, self._teacher(), 1).steps[0]
            has_second_derivatives = yield from second_derivative_checks(examined, step, {"all modules": [slice(None)]})
            if has_second_derivatives:
                yield dev_gradient_check(examined)
        finally:
            student.to_dtype(None)

    def _all_checks(self) -> Iterator[Check]:
        student = self._student
        yield from class_checks(student)
        yield reached_check(student)
        yield update_check(student)
        try:
            student.to_dtype(torch.float64)
            teacher, examined = self._teacher(), self._examined()
            step = short_unroll(examined, teacher).steps[0]
            yield pairs_check(examined, step)
            has_second_derivatives = yield from second_derivative_checks(examined, step, places_by_owner(student))
            yield adjoint_check(student)
            yield dropout_check(examined, step)
            if has_second_derivatives:
                yield dev_gradient_check(examined)
                yield from hypergradient_checks(examined, teacher)
        finally:
            student.to_dtype(None)

    def _teacher(self) -> Teacher:
        """Return a teacher whose coefficients differ between keys, words and states, on the student's device."""
        form = self._student.options.namespace.coefficient_form
        teacher = Teacher.for_student(self._student, keys=_KEYS, seed=_SEED, form=form)
        return spread(teacher, _SEED).to(self._student.omega.device)

    def _examined(self) -> ExaminedStudent:
        """Return the student with updates of a few pairs and a typical optimizer state."""
        examined = ExaminedStudent(self._student, pairs=_PAIRS, learning_rate=_highest_rate(self._student.options))
        examined.settle()
        return examined


def quick_check(student: FairseqStudent) -> list[Check]:
    """Run the quick checks of a student before it is taught; a new life begins afterwards.

    Raises:
        DoctorError: a check failed.
    """
    try:
        checks = list(Doctor(student).quick_checks())
    except NonFiniteError as error:
        raise DoctorError(f"quick check: {error}") from error
    failed = [str(check) for check in checks if not check.is_good]
    if failed:
        raise DoctorError("hypergradients are wrong (l2t-doctor prints the details): " + " | ".join(failed))
    return checks


def _highest_rate(options: StudentOptions) -> float:
    """Return the highest learning rate of the options: ``--lr``, except for triangular, where it is the lowest rate."""
    return float(vars(options.namespace).get("max_lr") or options.cfg.optimization.lr[0])
