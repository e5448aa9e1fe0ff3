"""One window of one life: student updates, the measure on dev, and the sweep back through the updates."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor

from fairseq_l2t.loss.teacher import Teacher
from fairseq_l2t.teaching.lives import Lives
from fairseq_l2t.teaching.plan import TeachingPlan
from fairseq_l2t.teaching.taught_window import TaughtWindow
from fairseq_l2t.teaching.work import StepKind
from fairseq_l2t.unroll.adjoint_sweep import Hypergradient, hypergradient_with_adjoint
from fairseq_l2t.unroll.memory.plan import MemoryPlan
from fairseq_l2t.unroll.student import NonFiniteError
from fairseq_l2t.unroll.trajectory import Trajectory, unroll
from fairseq_l2t.unroll.window import Window

__all__ = ["WindowRunner"]

LARGEST_RELATIVE_ERROR = 1.0
"""Smallest relative error at which an approximate hypergradient is refused; every step back multiplies the earlier
errors. Finite differences in float32 had errors of 0.001 to 0.25 over 40 updates, and 23,000 over 780
(benchmarks/cost/README.md)."""


class WindowRunner:
    """Runs windows and judging lives of one student.

    Args:
        lives: of the student.
        teacher: gives the coefficients.
        plan: the numbers of the run.
        measure, holdout: see `teaching.trainer.TeacherTrainer`.
        memory: memory plan for the saved updates of a window.
        on_step: called after every step back, with its kind and the number of the update.
    """

    def __init__(
        self,
        lives: Lives,
        teacher: Teacher,
        plan: TeachingPlan,
        measure: Callable[[int], tuple[float, Tensor]],
        holdout: Callable[[], float],
        memory: MemoryPlan,
        on_step: Callable[[StepKind, int], None],
    ) -> None:
        self._lives, self._teacher, self._plan, self._memory = lives, teacher, plan, memory
        self._student = lives.student
        self._measure, self._holdout, self._on_step = measure, holdout, on_step

    def run(self, life: int, begin: bool, teacher_update: int) -> TaughtWindow:
        """Run a window of a life and go back through it.

        Args:
            life: number of the life.
            begin: whether it begins here.
            teacher_update: number of teacher updates made.

        Raises:
            NonFiniteError: the loss, the measure or the hypergradient is NaN or infinite.
            ValueError: an approximate hypergradient that is too inexact.
        """
        if begin:
            self._lives.begin(self._plan.seed + life)
        steps = self._lives.next_window()
        kept = min(steps, self._plan.kept_length)
        self._lives.advance(steps - kept)
        trajectory = unroll(self._student, self._teacher, kept, self._memory, self._lives.after_update)
        value, grad_omega = self._measure(self._draw_of(life, teacher_update))
        if not math.isfinite(value):
            raise NonFiniteError(f"student update {self._student.update}: the measure is {value}")
        found = hypergradient_with_adjoint(
            trajectory, grad_omega, self._plan.hvp, lambda update: self._on_step("sweep", update + 1)
        )
        error = self._error_of(found, trajectory, grad_omega) if teacher_update == 0 else None
        if not math.isfinite(found.norm):
            raise NonFiniteError(f"student update {self._student.update}: the hypergradient is not finite")
        self._lives.end_window()
        judges_itself = self._lives.is_over() and not self._plan.holdout_lives and self._plan.dev_holdout > 0
        phi = trajectory.last_coefficients
        if phi is None:
            raise ValueError("window: no update uses the teacher; expected fewer cross-entropy updates")
        return TaughtWindow(
            life=life,
            student_update=self._student.update,
            measure=value,
            holdout=self._held_back() if judges_itself else None,
            found=found,
            coefficients=self._teacher.statistics(phi),
            recomputed=trajectory.recomputed,
            error=error,
            states=self._lives.take_states(),
        )

    def _draw_of(self, life: int, teacher_update: int) -> int:
        """Return the number from which the dev examples of a window are drawn; each life of an update has its own."""
        return teacher_update * self._plan.lives_per_update + life % self._plan.lives_per_update

    def _error_of(self, found: Hypergradient, trajectory: Trajectory | Window, grad_omega: Tensor) -> float | None:
        """Return the relative error of an approximation of the first window; raise ValueError if it is too large."""
        if self._plan.hvp == "exact":
            return None
        error = found.relative_error(hypergradient_with_adjoint(trajectory, grad_omega))
        if not error < LARGEST_RELATIVE_ERROR:
            raise ValueError(
                f"--hvp: {self._plan.hvp}; relative error {error:.3g} of the hypergradient of the first window, "
                f"expected below {LARGEST_RELATIVE_ERROR:g}: use exact, an --unroll-length below "
                f"{self._plan.unroll_length}, or more --cross-entropy-updates"
            )
        return error

    def judge(self, seed: int) -> float:
        """Live a judging life; return its measure on held-back examples.

        Raises:
            NonFiniteError: its loss or its measure is NaN or infinite.
        """
        self._lives.live(seed)
        return self._held_back()

    def _held_back(self) -> float:
        holdout = self._holdout()
        if not math.isfinite(holdout):
            raise NonFiniteError(f"student update {self._student.update}: the measure on held-back pairs is {holdout}")
        return holdout
