"""T real updates of a student under a teacher, and what must be kept to run back through them.

Source: Wu et al., NeurIPS 2018, Algorithm 1, forward half: ``omega_{t+1} = omega_t - eta_t d L_Phi_t / d omega_t``,
here with any `core.update_rules.UpdateRule` and gradient clipping in place of plain SGD.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from fairseq_l2t.core.student import Batch, NonFiniteError, Student
from fairseq_l2t.core.teacher import Teacher
from fairseq_l2t.core.update_rules import StepSize

__all__ = ["Step", "Trajectory", "advance", "replay", "student_gradient", "unroll"]


@dataclass(frozen=True)
class Step:
    """One update as it was made: everything before it, and the batch it used.

    ``state`` (features,) and ``coefficients`` (entries,) are None where the update used plain cross-entropy.
    """

    update: int
    omega: Tensor
    buffers: tuple[Tensor, ...]
    size: StepSize
    batch: Batch
    state: Tensor | None
    coefficients: Tensor | None

    def to(self, like: Tensor) -> Step:
        """Return the step with its vectors in the dtype and on the device of ``like``."""
        return replace(
            self,
            omega=self.omega.to(like),
            buffers=tuple(buffer.to(like) for buffer in self.buffers),
            state=None if self.state is None else self.state.to(like),
            coefficients=None if self.coefficients is None else self.coefficients.to(like),
        )


@dataclass
class Trajectory:
    """The updates of one unroll, oldest first, with the student and the teacher that made them."""

    student: Student
    teacher: Teacher
    steps: list[Step] = field(default_factory=list)


def student_gradient(student: Student, batch: Batch, coefficients: Tensor | None, update: int) -> Tensor:
    """Return the gradient (n,) of the student's loss per target token, before clipping, at its parameters.

    Measures nothing and changes no state; dropout is that of update number ``update``.
    """
    gradient, _, _ = _measured_gradient(student, batch, coefficients, update, measure=False)
    return gradient


def unroll(student: Student, teacher: Teacher, steps: int) -> Trajectory:
    """Make ``steps`` updates of ``student`` under ``teacher``; ``student.omega`` is omega_T afterwards.

    Memory: ``steps`` times the parameters and the optimizer state (for Adam 3 n numbers a step).

    Raises:
        ValueError: ``steps`` below 1.
        NonFiniteError: NaN or infinity in a loss or gradient, with the update and the first bad tensor.
    """
    if steps < 1:
        raise ValueError(f"--unroll-length: {steps}; expected at least 1")
    trajectory = Trajectory(student, teacher)
    for _ in range(steps):
        trajectory.steps.append(_make_update(student, teacher))
    return trajectory


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


def advance(student: Student, teacher: Teacher, steps: int) -> None:
    """Make ``steps`` updates of ``student`` under ``teacher`` and keep nothing of them.

    Raises:
        NonFiniteError: as `unroll`.
    """
    for _ in range(steps):
        _make_update(student, teacher)


def _make_update(student: Student, teacher: Teacher) -> Step:
    state = coefficients = None
    if student.update >= student.cross_entropy_updates:
        state = student.state.vector(student.update).to(student.omega)
        with torch.no_grad():
            coefficients = teacher(state)
    batch = student.next_batch()
    size = student.step_size()
    step = Step(student.update, student.omega.clone(), student.buffers, size, batch, state, coefficients)
    gradient, loss, accuracy = _measured_gradient(student, batch, coefficients, student.update, measure=True)
    if not bool(torch.isfinite(gradient.sum())):
        bad = student.parameters.first_bad(gradient) or "(sum of the gradient)"
        raise NonFiniteError(f"student update {student.update}: gradient of {bad} is not finite (loss {loss:g})")
    omega, buffers = student.rule.apply(student.omega, student.buffers, student.clipping.apply(gradient), size)
    student.state.observe_training(loss, accuracy)
    student.finish_update(omega, buffers)
    return step


def _measured_gradient(
    student: Student, batch: Batch, coefficients: Tensor | None, update: int, *, measure: bool
) -> tuple[Tensor, float, float]:
    """Return the gradient (n,), nll per token and accuracy (0 and 0 where not measured)."""
    total, nll, correct, tokens = None, 0.0, 0.0, 0
    with student.replay(update), torch.enable_grad():
        for part in student.losses(batch, coefficients, measure=measure):
            gradients = torch.autograd.grad(part.total, student.parameters.parameters, allow_unused=True)
            flat = student.parameters.gather(gradients).to(student.omega.dtype)
            total = flat if total is None else total.add_(flat)
            tokens += part.tokens
            if measure:
                nll, correct = nll + float(part.nll), correct + float(part.correct)
    # Summed first and scaled once, as fairseq's Trainer does: the same rounding.
    return total.mul_(1.0 / student.sample_size(batch)), nll / max(tokens, 1), correct / max(tokens, 1)
