"""The outer loop: windows of student updates, one teacher update after each.

Source: Wu et al., NeurIPS 2018, Algorithm 1. There every teacher update starts from a fresh student; here a life of
``total_updates`` is cut into windows of ``unroll_length`` updates, each ended by one measure on dev and one teacher
update, and the next window starts where the last one ended. With ``unroll_length == total_updates`` it is Algorithm 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from fairseq_l2t.loss.teacher import Teacher
from fairseq_l2t.storage.run_state import tensor_differences
from fairseq_l2t.teaching.backtracking import Backtracking
from fairseq_l2t.teaching.lives import Lives, LivingStudent
from fairseq_l2t.teaching.options.comparison import ResumeError, fixed_options, refuse_other_options
from fairseq_l2t.teaching.plan import TeachingPlan
from fairseq_l2t.teaching.processes import Message, OneProcess, Processes
from fairseq_l2t.teaching.taught_window import TaughtWindow, gathered_windows, mean_hypergradient, standard_error
from fairseq_l2t.teaching.teacher_optimizer import TeacherOptimizer
from fairseq_l2t.teaching.update_report import LifeReport, UpdateReport, sum_by_tenth
from fairseq_l2t.teaching.window_runner import WindowRunner
from fairseq_l2t.teaching.work import StepKind
from fairseq_l2t.unroll.adjoint_sweep import Hypergradient
from fairseq_l2t.unroll.memory.plan import MemoryPlan
from fairseq_l2t.unroll.student import NonFiniteError

__all__ = ["TeacherTrainer"]


class TeacherTrainer:
    """Trains a teacher on the lives of a student.

    Args:
        student: built; its life begins with the first window.
        teacher: trained in place.
        plan: the numbers of the run.
        measure: (number of the draw of dev pairs) -> (value, gradient (n,)) of the current student, to be maximised.
        holdout: () -> the same measure on held-back dev pairs.
        observe_dev: () -> None; updates the dev measures of the student's state, at the interval
            ``plan.dev_interval``.
        on_bad_window: called with the error of a window that ended in NaN or infinity.
        memory: memory plan for the saved updates of a window.
        processes: processes that share the lives of an update and those that judge; all make the same calls.
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
        processes: Processes | None = None,
    ) -> None:
        self.student, self.teacher, self.plan = student, teacher, plan
        self.on_step: Callable[[StepKind, int], None] = lambda kind, update: None
        """Called after every student update, and after every step back through one, with the number of the update."""
        self._lives = Lives(student, teacher, plan, observe_dev, lambda kind, update: self.on_step(kind, update))
        self._windows = WindowRunner(
            self._lives,
            teacher,
            plan,
            measure,
            holdout,
            memory or MemoryPlan(),
            lambda kind, update: self.on_step(kind, update),
        )
        self._on_bad_window = on_bad_window
        self._processes = processes or OneProcess()
        self._optimizer = TeacherOptimizer(teacher, plan)
        self._backtracking = Backtracking(self._optimizer, plan.teacher_lr_shrink)
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
        windows = self._teach()
        ended, judged = windows[0].student_update >= self.plan.total_updates, self.plan.holdout_lives > 0
        holdouts = [window.holdout for window in windows if window.holdout is not None]
        holdout = self._keep_if_best(sum(holdouts) / len(holdouts), keep_best) if holdouts else None
        self._bad_windows = 0
        found = mean_hypergradient(windows)
        self._optimizer.step(found.theta, found.norm)
        self._share_teacher()
        self.teacher_update += 1
        report = self._report(windows, holdout, found)
        if not (ended and judged):
            return report
        best, judgement = self.best_holdout, self._judge(keep_best)
        if judgement is None or (best is not None and judgement < best):
            self._backtracking.go_back()
        return replace(report, holdout_measure=judgement, teacher_rate_factor=self._optimizer.rate_factor)

    def _teach(self) -> list[TaughtWindow]:
        """Return the windows of the lives of this update that gave a usable hypergradient, in the order of lives.

        Every process lives its share of them: life k of an update belongs to process k modulo their number.

        Raises:
            NonFiniteError: there is none.
        """
        count = self.plan.lives_per_update
        # Several lives are whole ones. Of a process whose life ended in NaN, the student would say that it goes on.
        begin = count > 1 or self.life < 0 or self._life_is_spoilt or self._lives.is_over()
        first = self.life + begin
        lives = range(first, first + count)
        self.life, self._life_is_spoilt = lives[-1], False
        found: dict[int, TaughtWindow | str] = {}
        for life in lives[self._processes.rank :: self._processes.size]:
            try:
                found[life] = self._windows.run(life, begin, self.teacher_update)
            except NonFiniteError as error:
                found[life] = str(error)
        told = gathered_windows(self._processes, found, self.teacher.values.device)
        windows = [window for life in lives if isinstance(window := told[life], TaughtWindow)]
        problems = {life: problem for life in lives if isinstance(problem := told[life], str)}
        if not windows:
            raise NonFiniteError(next(iter(problems.values())))
        for life, problem in problems.items():
            self._on_bad_window(NonFiniteError(f"life {life}: {problem}, so it is left out of the mean"))
        return windows

    def _share_teacher(self) -> None:
        """Give all processes the teacher of the first one, so that they agree also where their processors round
        differently."""
        if self._processes.size == 1:
            return
        own = Message(self._optimizer.snapshot()) if self._processes.rank == 0 else None
        self._optimizer.restore(self._processes.from_first(own).tensors)

    def _judge(self, keep_best: Callable[[], None]) -> float | None:
        """Return the mean held-back measure of the judging lives; None if one of them ended in NaN.

        The processes share them out.
        """
        seeds = self.plan.holdout_seeds
        found: dict[str, float | str] = {}
        for seed in seeds[self._processes.rank :: self._processes.size]:
            try:
                found[str(seed)] = self._windows.judge(seed)
            except NonFiniteError as error:
                found[str(seed)] = str(error)
                break
        self._life_is_spoilt = True  # the student is not one that teaches
        for message in self._processes.gather(Message(values=found)):
            found.update(message.values)
        for seed in seeds:
            if isinstance(problem := found.get(str(seed)), str):
                # A teacher that ruins a student is not one to choose; the next life may still mend it.
                self._on_bad_window(NonFiniteError(f"--holdout-lives: {problem}, so this teacher is not chosen"))
                return None
        measures = [float(found[str(seed)]) for seed in seeds]
        return self._keep_if_best(sum(measures) / len(measures), keep_best)

    def _keep_if_best(self, holdout: float, keep_best: Callable[[], None]) -> float:
        if self.best_holdout is None or holdout > self.best_holdout:
            self.best_holdout = holdout
            self._backtracking.mark()
            keep_best()
        return holdout

    def _report(self, windows: Sequence[TaughtWindow], holdout: float | None, found: Hypergradient) -> UpdateReport:
        shown, errors = windows[0], [window.error for window in windows if window.error is not None]
        return UpdateReport(
            teacher_update=self.teacher_update,
            student_life=shown.life,
            student_update=shown.student_update,
            progress=shown.states[-1]["progress"],
            measure=sum(window.measure for window in windows) / len(windows),
            holdout_measure=holdout,
            hypergradient_norm=found.norm,
            adjoint_norm=found.adjoint_norm,
            **shown.coefficients,
            recomputed_updates=sum(window.recomputed for window in windows),
            pull_by_tenth=sum_by_tenth(found.pulls),
            hypergradient_error=max(errors) if errors else None,
            states=shown.states,
            teacher_rate_factor=self._optimizer.rate_factor,
            lives=tuple(LifeReport(one.life, one.measure, one.found.norm) for one in windows),
            hypergradient_standard_error=standard_error(windows, found),
        )

    def state_dict(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return tensors and plain values that determine the rest of the training."""
        # Of several lives an update has, each process knows its own last one; the next update begins new ones.
        is_needed = self.plan.lives_per_update == 1
        student_tensors, student_values = self.student.state_dict() if is_needed else ({}, None)
        tensors = {f"student.{name}": tensor for name, tensor in student_tensors.items()}
        tensors.update(self._optimizer.snapshot())
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
        self._optimizer.restore(tensors)
        self._optimizer.shrink(values["rate_factor"])
        self._backtracking.load_state_dict(_of_prefix(tensors, "best."))
        self.teacher_update, self.life = values["teacher_update"], values["life"]
        self.best_holdout, self._bad_windows = values["best_holdout"], values["bad_windows"]
        self._life_is_spoilt = values["life_is_spoilt"]
        if values["student"] is None:
            self._life_is_spoilt = True
        else:
            self.student.load_state_dict(_of_prefix(tensors, "student."), values["student"])


def _is_of_student(name: str) -> bool:
    return name.startswith("student.")


def _of_prefix(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
