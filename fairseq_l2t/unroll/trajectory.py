"""T real updates of a student under a teacher, recorded for the sweep back through them.

Source: Wu et al., NeurIPS 2018, Algorithm 1, forward half: ``omega_{t+1} = omega_t - eta_t d L_Phi_t / d omega_t``,
here with any `unroll.update_rules.UpdateRule` and gradient clipping in place of plain SGD.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Protocol, overload

import torch
from torch import Tensor

from fairseq_l2t.loss.teacher import Teacher
from fairseq_l2t.unroll.gradients import GradientKind, MeasuredGradient, measured_gradient, student_gradient
from fairseq_l2t.unroll.in_place_updates import apply_in_place
from fairseq_l2t.unroll.memory.plan import MemoryPlan
from fairseq_l2t.unroll.step_records import Revisit, Step
from fairseq_l2t.unroll.student import Batch, NonFiniteError, Student
from fairseq_l2t.unroll.window import Window

__all__ = ["Step", "Trajectory", "advance", "replay", "student_gradient", "unroll"]


@dataclass
class Trajectory:
    """The updates of one unroll, oldest first, each with its vectors.

    Args:
        student, teacher: as in `unroll`.
        steps: the updates.
    """

    student: Student
    teacher: Teacher
    steps: list[Step] = field(default_factory=list)
    recomputed = 0
    """Updates made again by sweeps: none."""

    @property
    def last_coefficients(self) -> Tensor | None:
        """Coefficients (entries,) of the last update; None under plain cross-entropy."""
        return self.steps[-1].coefficients

    def before_update(self, batch: Batch, coefficients: Tensor | None) -> GradientKind:
        """Save parameters and optimizer state; request the gradient alone."""
        self._before = self.student.omega.clone(), tuple(buffer.clone() for buffer in self.student.buffers)
        return GradientKind.VECTOR

    def after_update(self, step: Step, gradient: MeasuredGradient) -> None:
        """Save the update with the vectors before it."""
        omega, buffers = self._before
        self.steps.append(replace(step, omega=omega, buffers=buffers))

    def backwards(self) -> Iterator[Revisit]:
        """Yield the updates, last first."""
        return map(Revisit, reversed(self.steps))


class _Recorder(Protocol):
    """A recorder of updates: `Trajectory` or `Window`."""

    def before_update(self, batch: Batch, coefficients: Tensor | None) -> GradientKind: ...

    def after_update(self, step: Step, gradient: MeasuredGradient) -> None: ...


@overload
def unroll(
    student: Student, teacher: Teacher, steps: int, memory: None = None, after_each: Callable[[], None] = ...
) -> Trajectory: ...


@overload
def unroll(
    student: Student, teacher: Teacher, steps: int, memory: MemoryPlan, after_each: Callable[[], None] = ...
) -> Window: ...


@overload
def unroll(
    student: Student, teacher: Teacher, steps: int, memory: MemoryPlan | None, after_each: Callable[[], None] = ...
) -> Trajectory | Window: ...


def unroll(
    student: Student,
    teacher: Teacher,
    steps: int,
    memory: MemoryPlan | None = None,
    after_each: Callable[[], None] = lambda: None,
) -> Trajectory | Window:
    """Make ``steps`` updates of ``student`` under ``teacher``; ``student.omega`` (n,) is omega_T afterwards.

    Source: Wu et al., NeurIPS 2018, Algorithm 1.

    Args:
        student: the student; its parameters, optimizer state and position in the data move on.
        teacher: the teacher; it does not change.
        steps: number T of updates.
        memory: memory plan of the record (`unroll.memory.plan`). None: a `Trajectory` with the parameters and
            optimizer state of every update (for Adam 3 n numbers per step).
        after_each: called after every update; may renew the dev measures of the student's state.

    Raises:
        ValueError: ``steps`` below 1, or a budget that is too small.
        NonFiniteError: NaN or infinity in a loss or gradient; the message names the update and the first such tensor.

    Example:
        >>> from fairseq_l2t.core import Teacher, unroll
        >>> from fairseq_l2t.testing.toy_student import ToyStudent
        >>> student = ToyStudent()
        >>> trajectory = unroll(student, Teacher.for_student(student), steps=4)
        >>> [step.update for step in trajectory.steps], student.update
        ([0, 1, 2, 3], 4)
    """
    if steps < 1:
        raise ValueError(f"--unroll-length: {steps}; expected at least 1")
    recorder = Trajectory(student, teacher) if memory is None else Window(student, teacher, steps, memory)
    for _ in range(steps):
        _make_update(student, teacher, recorder)
        after_each()
    return recorder


def replay(trajectory: Trajectory, teacher: Teacher) -> Tensor:
    """Make the updates of ``trajectory`` again under another teacher and return omega_T (n,).

    Batches, dropout, step sizes and states are those recorded: states are data and do not change with the teacher.
    Only the student's parameters change, to omega_T; its number of updates and its state stay.
    """
    student, first = trajectory.student, trajectory.steps[0]
    omega, buffers = first.omega, first.buffers
    for step in trajectory.steps:
        student.set_omega(omega)
        with torch.no_grad():
            coefficients = None if step.state is None else teacher(step.state)
        gradient = student_gradient(student, step.batch, coefficients, step.update)
        omega, buffers = student.rule.apply(omega, buffers, student.clipping.apply(gradient), step.size)
    student.set_omega(omega)
    return omega


def advance(student: Student, teacher: Teacher, steps: int, after_each: Callable[[], None] = lambda: None) -> None:
    """Make ``steps`` updates of ``student`` under ``teacher`` without a record; arguments as in `unroll`.

    Raises:
        NonFiniteError: as `unroll`.
    """
    for _ in range(steps):
        _make_update(student, teacher, None)
        after_each()


def _make_update(student: Student, teacher: Teacher, recorder: _Recorder | None) -> None:
    state = coefficients = None
    if student.update >= student.cross_entropy_updates:
        state = student.state.vector(student.update).to(student.omega)
        with torch.no_grad():
            coefficients = teacher(state)
    batch, size = student.next_batch(), student.step_size()
    step = Step(student.update, student.omega, student.buffers, size, batch, state, coefficients)
    kind = GradientKind.VECTOR if recorder is None else recorder.before_update(batch, coefficients)
    found = measured_gradient(student, batch, coefficients, student.update, kind=kind)
    gradient = found.vector
    if not bool(torch.isfinite(gradient.sum())):
        bad = student.parameters.first_bad(gradient) or "(sum of the gradient)"
        raise NonFiniteError(f"student update {student.update}: gradient of {bad} is not finite (loss {found.nll:g})")
    apply_in_place(student.rule, student.omega, student.buffers, student.clipping.apply(gradient), size)
    student.state.observe_training(found.nll, found.accuracy)
    student.finish_update(student.omega, student.buffers)
    if recorder is not None:
        recorder.after_update(step, found)
