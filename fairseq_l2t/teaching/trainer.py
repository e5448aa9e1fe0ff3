"""The outer loop: windows of student updates, one teacher update after each.

Source: Wu et al., NeurIPS 2018, Algorithm 1. There every teacher update starts from a fresh student; here a life of
``total_updates`` is cut into windows of ``unroll_length`` updates, each ended by one measure on dev and one teacher
update, and the next window starts where the last one ended. With ``unroll_length == total_updates`` it is Algorithm 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from fairseq_l2t.loss.teacher import Teacher
from fairseq_l2t.storage.run_state import tensor_differences
from fairseq_l2t.teaching.backtracking import Backtracking
from fairseq_l2t.teaching.lives import Lives, LivingStudent
from fairseq_l2t.teaching.options.comparison import ResumeError, fixed_options, refuse_other_options
from fairseq_l2t.teaching.plan import TeachingPlan
from fairseq_l2t.teaching.teacher_optimizer import TeacherOptimizer
from fairseq_l2t.teaching.update_report import UpdateReport, sum_by_tenth
from fairseq_l2t.teaching.work import StepKind
from fairseq_l2t.unroll.adjoint_sweep import Hypergradient, hypergradient_with_adjoint
from fairseq_l2t.unroll.memory.plan import MemoryPlan
from fairseq_l2t.unroll.student import NonFiniteError
from fairseq_l2t.unroll.trajectory import Trajectory, unroll
from fairseq_l2t.unroll.window import Window

__all__ = ["TeacherTrainer"]


LARGEST_RELATIVE_ERROR = 1.0
"""Smallest relative error at which an approximate hypergradient is refused; every step back multiplies the earlier
errors. Finite differences in float32 had errors of 0.001 to 0.25 over 40 updates, and 23,000 over 780
(benchmarks/cost/README.md)."""


class TeacherTrainer:
    """Trains a teacher on the lives of a student.

    Args:
        student: built; its life begins with the first window.
        teacher: trained in place.
        plan: the numbers of the run.
        measure: (teacher update number) -> (value, gradient (n,)) of the current student, to be maximised.
        holdout: () -> the same measure on held-back dev pairs.
        observe_dev: () -> None; updates the dev measures of the student's state, at the interval
            ``plan.dev_interval``.
        on_bad_window: called with the error of a window that ended in NaN or infinity.
        memory: memory plan for the saved updates of a window.
    """

    def __init__(
        self,
        student: LivingStudent,
        teacher: Teacher,
        plan: TeachingPlan,
        *,
        measure: Callable[[int], tuple[float, Tensor]],
        holdout: Callable[[], float],
        observe_dev: Callable[[], None],
        on_bad_window: Callable[[NonFiniteError], None] = lambda error: None,
        memory: MemoryPlan | None = None,
    ) -> None:
        self.student, self.teacher, self.plan = student, teacher, plan
        self._measure, self._holdout = measure, holdout
        self.on_step: Callable[[StepKind, int], None] = lambda kind, update: None
        """Called after every student update, and after every step back through one, with the number of the update."""
        self._lives = Lives(student, teacher, plan, observe_dev, lambda kind, update: self.on_step(kind, update))
        self._on_bad_window, self._memory = on_bad_window, memory or MemoryPlan()
        self._optimizer = TeacherOptimizer(teacher, plan)
        self._backtracking = Backtracking(teacher, self._optimizer, plan.teacher_lr_shrink)
        self.teacher_update = 0
        self.life = -1
        self.best_holdout: float | None = None
        self._bad_windows = 0
        self._life_is_spoilt = False

    def run_update(self, keep_best: Callable[[], None]) -> UpdateReport:
        """Run windows until one gives a usable hypergradient; make one teacher update; return its report.

        ``keep_best`` is called when the current teacher is better on held-back pairs than all earlier ones. Without
        ``holdout_lives`` the life that trained the teacher judges it, before the update. With them the judging lives
        do, after the update and also before the first one. Without ``dev_holdout`` no teacher is judged.

        Raises:
            NonFiniteError: ``max_bad_steps`` windows in a row ended in NaN or infinity; the teacher is unchanged since
                before them.
        """
        initial = self._judge(keep_best) if self.life < 0 and self.plan.holdout_lives else None
        while True:
            try:
                return replace(self._run_window(keep_best), initial_holdout_measure=initial)
            except NonFiniteError as error:
                self._bad_windows += 1
                self._on_bad_window(error)
                if self._bad_windows >= self.plan.max_bad_steps:
                    count = f"{self._bad_windows} windows in a row" if self._bad_windows > 1 else "one window"
                    raise NonFiniteError(f"{error}; {count} ended in NaN or infinity (--max-bad-steps)") from error
                # Begun by the next window, so that what goes wrong in its first updates is counted too.
                self._life_is_spoilt = True

    @property
    def has_ended_a_life(self) -> bool:
        """Whether a life has been completed, so that the teacher could be judged."""
        return self.life > 0 or (self.life == 0 and self._lives.is_over())

    def _run_window(self, keep_best: Callable[[], None]) -> UpdateReport:
        if self.life < 0 or self._life_is_spoilt or self._lives.is_over():
            self.life += 1
            self._life_is_spoilt = False
            self._lives.begin(self.plan.seed + self.life)
        steps = self._lives.next_window()
        kept = min(steps, self.plan.kept_length)
        self._lives.advance(steps - kept)
        trajectory = unroll(self.student, self.teacher, kept, self._memory, self._lives.after_update)
        value, grad_omega = self._measure(self.teacher_update)
        if not math.isfinite(value):
            raise NonFiniteError(f"student update {self.student.update}: the measure is {value}")
        found = hypergradient_with_adjoint(
            trajectory, grad_omega, self.plan.hvp, lambda update: self.on_step("sweep", update + 1)
        )
        error = self._error_of(found, trajectory, grad_omega)
        if not math.isfinite(found.norm):
            raise NonFiniteError(f"student update {self.student.update}: the hypergradient is not finite")
        self._lives.end_window()
        ended, judged = self._lives.is_over(), self.plan.holdout_lives > 0
        judges_itself = ended and not judged and self.plan.dev_holdout > 0
        holdout = self._keep_if_best(self._held_back(), keep_best) if judges_itself else None
        phi = trajectory.last_coefficients
        if phi is None:
            raise ValueError("window: no update uses the teacher; expected fewer cross-entropy updates")
        self._bad_windows = 0
        self._optimizer.step(found.theta, found.norm)
        self.teacher_update += 1
        report = self._report(value, holdout, found, phi, trajectory.recomputed, error)
        if not (ended and judged):
            return report
        best, judgement = self.best_holdout, self._judge(keep_best)
        if judgement is None or (best is not None and judgement < best):
            self._backtracking.go_back()
        return replace(report, holdout_measure=judgement, teacher_rate_factor=self._optimizer.rate_factor)

    def _error_of(self, found: Hypergradient, trajectory: Trajectory | Window, grad_omega: Tensor) -> float | None:
        """Return the relative error of an approximation on the first window; raise ValueError if it is too large."""
        if self.plan.hvp == "exact" or self.teacher_update:
            return None
        error = found.relative_error(hypergradient_with_adjoint(trajectory, grad_omega))
        if not error < LARGEST_RELATIVE_ERROR:
            raise ValueError(
                f"--hvp: {self.plan.hvp}; relative error {error:.3g} of the hypergradient of the first window, "
                f"expected below {LARGEST_RELATIVE_ERROR:g}: use exact, an --unroll-length below "
                f"{self.plan.unroll_length}, or more --cross-entropy-updates"
            )
        return error

    def _judge(self, keep_best: Callable[[], None]) -> float | None:
        """Return the mean held-back measure of the judging lives; None if one of them ended in NaN."""
        try:
            found = [self._held_back_of(seed) for seed in self.plan.holdout_seeds]
        except NonFiniteError as error:
            # A teacher that ruins a student is not one to choose; the next life may still mend it.
            self._on_bad_window(NonFiniteError(f"--holdout-lives: {error}, so this teacher is not chosen"))
            return None
        finally:
            self._life_is_spoilt = True  # the student is not one that teaches
        return self._keep_if_best(sum(found) / len(found), keep_best)

    def _held_back_of(self, seed: int) -> float:
        self._lives.live(seed)
        return self._held_back()

    def _held_back(self) -> float:
        holdout = self._holdout()
        if not math.isfinite(holdout):
            raise NonFiniteError(f"student update {self.student.update}: the measure on held-back pairs is {holdout}")
        return holdout

    def _keep_if_best(self, holdout: float, keep_best: Callable[[], None]) -> float:
        if self.best_holdout is None or holdout > self.best_holdout:
            self.best_holdout = holdout
            self._backtracking.mark()
            keep_best()
        return holdout

    def _report(
        self,
        value: float,
        holdout: float | None,
        found: Hypergradient,
        phi: Tensor,
        recomputed: int,
        error: float | None,
    ) -> UpdateReport:
        states = self._lives.take_states()
        return UpdateReport(
            teacher_update=self.teacher_update,
            student_life=self.life,
            student_update=self.student.update,
            progress=states[-1]["progress"],
            measure=value,
            holdout_measure=holdout,
            hypergradient_norm=found.norm,
            adjoint_norm=found.adjoint_norm,
            **self.teacher.statistics(phi),
            recomputed_updates=recomputed,
            pull_by_tenth=sum_by_tenth(found.pulls),
            hypergradient_error=error,
            states=states,
            teacher_rate_factor=self._optimizer.rate_factor,
        )

    def state_dict(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return tensors and plain values that determine the rest of the training."""
        student_tensors, student_values = self.student.state_dict()
        tensors = {f"student.{name}": tensor for name, tensor in student_tensors.items()}
        tensors.update({f"teacher.{name}": tensor.detach() for name, tensor in self.teacher.named_parameters()})
        tensors.update({f"optimizer.{name}": tensor for name, tensor in self._optimizer.state_dict().items()})
        tensors.update({f"best.{name}": tensor for name, tensor in self._backtracking.state_dict().items()})
        values = {
            "plan": fixed_options(self.plan),
            "rate_factor": self._optimizer.rate_factor,
            "teacher_update": self.teacher_update,
            "life": self.life,
            "best_holdout": self.best_holdout,
            "bad_windows": self._bad_windows,
            "life_is_spoilt": self._life_is_spoilt,
            "student": student_values,
        }
        return tensors, values

    def load_state_dict(self, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        """Restore the result of `state_dict`; options that do not change the result of an update may differ.

        Raises:
            ResumeError: the state is from a run with other options, or its tensors do not fit student and teacher.
        """
        refuse_other_options(values["plan"], fixed_options(self.plan))
        expected, _ = self.state_dict()
        problems = tensor_differences(tensors, expected)
        problems += [
            f"tensor {name} is not expected" for name in tensors if _is_of_student(name) and name not in expected
        ]
        if problems:
            raise ResumeError(f"--resume: the run state does not fit this run: {'; '.join(problems)}")
        for name, parameter in self.teacher.named_parameters():
            with torch.no_grad():
                parameter.copy_(tensors[f"teacher.{name}"])
        self._optimizer.load_state_dict(_of_prefix(tensors, "optimizer."))
        self._optimizer.shrink(values["rate_factor"])
        self._backtracking.load_state_dict(_of_prefix(tensors, "best."))
        self.teacher_update, self.life = values["teacher_update"], values["life"]
        self.best_holdout, self._bad_windows = values["best_holdout"], values["bad_windows"]
        self._life_is_spoilt = values["life_is_spoilt"]
        self.student.load_state_dict(_of_prefix(tensors, "student."), values["student"])


def _is_of_student(name: str) -> bool:
    return name.startswith("student.")


def _of_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
