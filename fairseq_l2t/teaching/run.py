"""One run of a teacher training in a folder, for any kind of student: build, resume, record, show, stop."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from fairseq_l2t.loss.teacher import Teacher
from fairseq_l2t.storage import TeacherSettings, Vocabulary, lock_run_folder, save_teacher
from fairseq_l2t.teaching.interruption import stop_requests
from fairseq_l2t.teaching.lives import LivingStudent
from fairseq_l2t.teaching.options.comparison import plain_options
from fairseq_l2t.teaching.options.config_file import write_config
from fairseq_l2t.teaching.plan import TeachingPlan
from fairseq_l2t.teaching.processes import OneProcess, Processes, started_processes
from fairseq_l2t.teaching.progress_display import in_words
from fairseq_l2t.teaching.record import SavedState, TeachingRecord, require_run, saved_run, warn_of_bad_window
from fairseq_l2t.teaching.saved_state import StudentValues, check_of
from fairseq_l2t.teaching.shared_run import (
    agreed_stop,
    refuse_idle_processes,
    state_from_first,
    state_to_others,
)
from fairseq_l2t.teaching.trainer import TeacherTrainer
from fairseq_l2t.teaching.update_report import UpdateReport
from fairseq_l2t.teaching.work import RunWork, StepKind
from fairseq_l2t.unroll.memory.budget import bytes_of, plan_for
from fairseq_l2t.unroll.memory.plan import MemoryPlan

__all__ = ["Objective", "Progress", "RunSetup", "StudentAdapter", "TeachingRun", "run_teaching"]

logger = logging.getLogger(__name__)


class StudentAdapter(Protocol):
    """The interface between a run and its students."""

    @property
    def student(self) -> LivingStudent:
        """The student, built."""

    @property
    def vocabulary(self) -> Vocabulary:
        """The vocabulary (or classes) for which the teacher has coefficients."""

    @property
    def fingerprints(self) -> Mapping[str, str]:
        """SHA-256 of the content that a resumed run must share, by name; `build` compares it."""

    def new_teacher(self, plan: TeachingPlan) -> Teacher:
        """Return the initial teacher."""

    def observe_dev(self) -> None:
        """Update the dev measures of the student's state."""

    def settings(self, extra: dict[str, Any]) -> TeacherSettings:
        """Return the settings of the teacher file; ``extra`` are the entries added by the run."""


class Objective(Protocol):
    """The objective of the teacher: a measure of the student on dev, to be maximised."""

    def measure(self, teacher_update: int) -> tuple[float, Tensor]:
        """Return the measure and its gradient (n,) at omega, on the dev examples of a teacher update."""

    def holdout(self, teacher_update: int) -> float:
        """Return the measure on the held-back dev examples."""

    def largest(self) -> object:
        """Compute the measure on the dev examples that need the most memory."""


class Progress(Protocol):
    """The display of a run's progress."""

    def show(self, report: UpdateReport, seconds: float, left: float) -> None:
        """Show one update, its duration in seconds, and the estimated seconds that remain."""

    def step(self, work: RunWork) -> None:
        """Show one student update, or one step back through one."""


@dataclass(frozen=True)
class RunSetup:
    """The settings of a run.

    Args:
        folder: folder of the run, ``--save-dir``.
        plan: the resolved options of teaching.
        resume: whether a run in the folder is continued, which must exist.
        fixed: options that a resumed run must share, JSON-able (`teaching.options.comparison.fixed_options`).
        config: the resolved options, by name, in the form that `teaching.options.config_file.read_config` reads.
        given: names of the options that are given.
        preset: name of the preset that gives the others; empty if there is only one preset.
        resume_or_start: whether a run in the folder is continued if there is one.
        student_values: schema of the values that its students save.
    """

    folder: Path
    plan: TeachingPlan
    resume: bool
    fixed: Mapping[str, Any]
    config: Mapping[str, Any]
    given: frozenset[str] = frozenset()
    preset: str = ""
    resume_or_start: bool = False
    student_values: type[StudentValues] = StudentValues


def run_teaching(
    setup: RunSetup,
    build: Callable[[SavedState | None], tuple[StudentAdapter, Objective]],
    progress: Callable[[int], AbstractContextManager[Progress]],
) -> None:
    """Lock the folder, build student and objective, and make the remaining teacher updates.

    Of several processes that torchrun started, the first one locks the folder, reads it and writes to it.

    Args:
        setup: settings of the run.
        build: builds student and objective from the saved state of a resumed run, or from None.
        progress: (teacher updates made) -> the display of the remaining updates.

    Raises:
        ResumeError: the folder holds a run and ``resume`` is not set, or the reverse, or options changed since the run
            was started.
        RunStateError: a state that cannot be resumed.
        Interrupted: a signal was received; the state after the current update is saved.
        NonFiniteError: too many windows in a row ended in NaN or infinity; the files are those of the last good
            update.
        WorkerError: another process ended or did not answer; the files are those of the last teacher update.
        OptionError: more processes than lives.
        ValueError, OSError: see `build`, and `unroll.memory.budget.plan_for`.
    """
    with started_processes(setup.plan.worker_timeout) as processes:
        refuse_idle_processes(processes, setup.plan)
        if processes.rank:
            saved = state_from_first(processes)
            TeachingRun(setup, *build(saved), saved, processes).run(no_progress)
            return
        if setup.resume:
            require_run(setup.folder)  # before the lock, which creates the folder; other hosts may not see it
        with lock_run_folder(setup.folder) as folder:
            check = check_of(setup.student_values)
            saved = saved_run(folder, resume=setup.resume or setup.resume_or_start, check=check)
            state_to_others(processes, saved)
            run = TeachingRun(setup, *build(saved), saved, processes)
            write_config(folder, setup.config)
            run.run(progress)


class TeachingRun:
    """A run on a locked folder.

    Args:
        setup: settings of the run.
        adapter: its student.
        objective: objective of its teacher.
        saved: result of `teaching.record.saved_run`.
        processes: those that share the run.

    Raises:
        ResumeError: options changed since the run was started.
        ValueError: a memory budget that is too small for a window.
    """

    def __init__(
        self,
        setup: RunSetup,
        adapter: StudentAdapter,
        objective: Objective,
        saved: SavedState | None,
        processes: Processes | None = None,
    ) -> None:
        self._setup, self._adapter, self._objective = setup, adapter, objective
        self._processes = processes or OneProcess()
        plan = setup.plan
        self.trainer = TeacherTrainer(
            adapter.student,
            adapter.new_teacher(plan),
            plan,
            measure=objective.measure,
            holdout=lambda: objective.holdout(self.trainer.teacher_update),
            observe_dev=adapter.observe_dev,
            on_bad_window=warn_of_bad_window,
            memory=self._memory_plan(),
            processes=self._processes,
        )
        self._record = TeachingRecord(
            setup.folder,
            self.trainer,
            setup.fixed,
            self._save,
            saved,
            given=setup.given,
            preset=setup.preset,
            is_written=self._processes.rank == 0,
            fingerprints=adapter.fingerprints,
        )

    def run(self, progress: Callable[[int], AbstractContextManager[Progress]]) -> None:
        """Make the remaining teacher updates; see `run_teaching`."""
        trainer, plan = self.trainer, self._setup.plan
        logger.info(
            "life of a student: %d updates, the first %d with cross-entropy, then windows of %d",
            plan.total_updates,
            plan.cross_entropy_updates,
            plan.unroll_length,
        )
        first = trainer.teacher_update
        work = RunWork(plan, first, processes=self._processes.size)

        def when() -> str:
            return f"after this teacher update{in_words(work.seconds_left_of_update)}"

        with progress(first) as shown, stop_requests(when) as stop:

            def on_step(kind: StepKind, update: int) -> None:
                work.step(kind, update)
                shown.step(work)

            trainer.on_step = on_step
            for report, seconds, left in self._updates():
                work.begin_update(report.teacher_update)
                shown.show(report, seconds, left)
                _log_error(report)
                stop.number = agreed_stop(self._processes, stop.number)
                stop.raise_if_made()
        self._record.finish()

    def _updates(self) -> Iterator[tuple[UpdateReport, float, float]]:
        """Make updates; yield the report, the duration of the update and the estimated seconds that remain."""
        trainer, total = self.trainer, self._setup.plan.teacher_updates
        first, begun = trainer.teacher_update, time.monotonic()
        while trainer.teacher_update < total:
            report, seconds = self._record.make_update()
            done = trainer.teacher_update - first
            yield report, seconds, (time.monotonic() - begun) / done * (total - trainer.teacher_update)

    def _memory_plan(self) -> MemoryPlan:
        plan = self._setup.plan
        return plan_for(
            self._adapter.student,
            plan.kept_length,
            None if plan.memory_budget is None else bytes_of(plan.memory_budget),
            self._objective.largest,
            keep_graphs=plan.keep_graphs,
            place=plan.keep_steps_in,
            folder=self._setup.folder,
            for_differences=plan.hvp != "exact",
            processes=self._processes.on_host,
        )

    def _save(self, path: Path, states: list[dict[str, float]]) -> None:
        extra = {
            "teacher_update": self.trainer.teacher_update,
            "plan": plain_options(self._setup.plan),
            "states": states,
        }
        save_teacher(path, self.trainer.teacher, self._adapter.vocabulary, self._adapter.settings(extra))


class _NoProgress:
    """The display of a process that is not the first."""

    def show(self, report: UpdateReport, seconds: float, left: float) -> None:
        """Show nothing."""

    def step(self, work: RunWork) -> None:
        """Show nothing."""


def no_progress(done: int) -> AbstractContextManager[Progress]:
    """Return a display that shows nothing."""
    return nullcontext(_NoProgress())


def _log_error(report: UpdateReport) -> None:
    if report.hypergradient_error is not None:
        logger.info(
            "--hvp finite-difference: the hypergradient of the first window differs from the exact one by %.2g %%",
            100 * report.hypergradient_error,
        )
