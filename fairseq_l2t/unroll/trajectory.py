"""T real updates of a student under a teacher, and what must be kept to run back through them.

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
from fairseq_l2t.unroll.gradients import MeasuredGradient, Wanted, measured_gradient, student_gradient
from fairseq_l2t.unroll.in_place_updates import apply_in_place
from fairseq_l2t.unroll.memory.plan import MemoryPlan
from fairseq_l2t.unroll.steps import Revisit, Step
from fairseq_l2t.unroll.student import Batch, NonFiniteError, Student
from fairseq_l2t.unroll.window import Window

__all__ = ["Step", "Trajectory", "advance", "replay", "student_gradient", "unroll"]


@dataclass
class Trajectory:
    """The updates of one unroll, oldest first, all kept whole, with the student and the teacher that made them."""

    student: Student
    teacher: Teacher
    steps: list[Step] = field(default_factory=list)
    recomputed = 0

    @property
    def last_coefficients(self) -> Tensor | None:
        """Coefficients (entries,) of the last update; None under plain cross-entropy."""
        return self.steps[-1].coefficients

    def before_update(self, batch: Batch, coefficients: Tensor | None) -> Wanted:
        """Keep parameters and optimizer state; nothing else is wanted."""
        self._before = self.student.omega.clone(), tuple(buffer.clone() for buffer in self.student.buffers)
        return Wanted.VECTOR

    def after_update(self, step: Step, gradient: MeasuredGradient) -> None:
        """Keep the update with the vectors it started from."""
        omega, buffers = self._before
        self.steps.append(replace(step, omega=omega, buffers=buffers))

    def backwards(self) -> Iterator[Revisit]:
        """Yield the updates, last first."""
        return map(Revisit, reversed(self.steps))


class _Recorder(Protocol):
    """What is told of every update: `Trajectory` and `Window`."""

    def before_update(self, batch: Batch, coefficients: Tensor | None) -> Wanted: ...

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
    """Make ``steps`` updates of ``student`` under ``teacher``; ``student.omega`` is omega_T afterwards.

    Args:
        student, teacher: the teacher does not move meanwhile.
        steps: number T of updates.
        memory: how they are kept (`unroll.memory.plan`). None: every update with its parameters and optimizer state,
            ``steps`` times as many numbers (for Adam 3 n a step), as a `Trajectory` whose steps can be looked at.
        after_each: called after every update; may refresh what the student's state knows of dev.

    Raises:
        ValueError: ``steps`` below 1, or a budget that is too small.
        NonFiniteError: NaN or infinity in a loss or gradient, with the update and the first bad tensor.
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

    Batches, dropout, step sizes and states are those recorded: states are data and do not move with the teacher.
    Only the student's parameters change, to omega_T; where its life stands, and what its state has seen, does not.
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
    """Make ``steps`` updates of ``student`` under ``teacher`` and keep nothing of them; the rest as `unroll`.

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
    wanted = Wanted.VECTOR if recorder is None else recorder.before_update(batch, coefficients)
    found = measured_gradient(student, batch, coefficients, student.update, wanted=wanted)
    gradient = found.vector
    if not bool(torch.isfinite(gradient.sum())):
        bad = student.parameters.first_bad(gradient) or "(sum of the gradient)"
        raise NonFiniteError(f"student update {student.update}: gradient of {bad} is not finite (loss {found.nll:g})")
    apply_in_place(student.rule, student.omega, student.buffers, student.clipping.apply(gradient), size)
    student.state.observe_training(found.nll, found.accuracy)
    student.finish_update(student.omega, student.buffers)
    if recorder is not None:
        recorder.after_update(step, found)
