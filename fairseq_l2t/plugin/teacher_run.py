"""One run of ``l2t-train-teacher``: options, student, teacher, and a folder that survives interruption."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fairseq.data.iterators import CountingIterator
from fairseq.logging import progress_bar

from fairseq_l2t.loss.teacher import Teacher
from fairseq_l2t.plugin.doctor.doctor import quick_check
from fairseq_l2t.plugin.run_options import RunOptions
from fairseq_l2t.plugin.student.fairseq_student import FairseqStudent
from fairseq_l2t.plugin.task import vocabulary_of
from fairseq_l2t.plugin.window_memory import plan_of_run
from fairseq_l2t.storage import TeacherSettings, lock_run_folder, save_teacher
from fairseq_l2t.teaching.interruption import stop_requests
from fairseq_l2t.teaching.record import ResumeError, TeachingRecord, saved_run, warn_of_bad_window
from fairseq_l2t.teaching.trainer import TeacherTrainer, UpdateReport

__all__ = ["TeacherRun"]

logger = logging.getLogger(__name__)


class TeacherRun:
    """A run on a locked folder.

    Args:
        options: the checked options.

    Raises:
        ResumeError: the folder holds a run and ``--resume`` is not given, or options changed since it was started.
        DoctorError: the quick form of ``l2t-doctor`` found that the student's hypergradients cannot be trusted.
        RunStateError: a state that cannot be resumed.
    """

    def __init__(self, options: RunOptions) -> None:
        self.options = options
        saved = saved_run(options.folder, resume=options.resume)
        self._student = student = FairseqStudent(options.student)
        if options.student.namespace.skip_quick_check:
            logger.warning("--skip-quick-check: nobody has looked whether this student's hypergradients are right")
        else:
            for check in quick_check(student):
                logger.info("quick check: %s", check)
        given = options.student.namespace
        teacher = Teacher.for_student(
            student,
            keys=options.keys,
            seed=options.plan.seed,
            initial_coefficient=given.initial_coefficient,
            stage_spread=given.stage_spread,
            form=given.coefficient_form,
            initial_off_diagonal=given.initial_off_diagonal,
        )
        self.trainer = TeacherTrainer(
            student,
            teacher,
            options.plan,
            measure=self._measure,
            holdout=self._holdout,
            observe_dev=self._observe_dev,
            dev_interval=options.dev_interval,
            on_bad_window=warn_of_bad_window,
            memory=plan_of_run(options, student, self._dev_objective),
            hvp=options.student.namespace.hvp,
        )
        self._vocabulary = vocabulary_of(student.task.target_dictionary)
        try:
            self._record = TeachingRecord(options.folder, self.trainer, options.fixed(), self._save, saved)
        except ResumeError as error:
            raise ResumeError(f"{error}{_of_presets(options, saved)}") from None

    @classmethod
    @contextmanager
    def open(cls, arguments: Sequence[str]) -> Iterator[TeacherRun]:
        """Check the options, lock the folder, and hold it for the run."""
        options = RunOptions.parse(arguments)
        with lock_run_folder(options.folder):
            yield cls(options)

    def run(self) -> None:
        """Make the teacher updates that are left.

        Raises:
            Interrupted: a signal came; the state after the update then under way is saved.
            NonFiniteError: too many windows in a row ended in NaN or infinity; the files are those of the last
                good update.
        """
        trainer, plan = self.trainer, self.options.plan
        if self.options.objective == "expected-bleu":
            logger.info("reward: %s, estimator %s", self._student.reward().signature(), self.options.estimator)
        logger.info(
            "a student's life: %d updates, the first %d with cross-entropy, then windows of %d",
            plan.total_updates,
            self.options.student.cross_entropy_updates,
            plan.unroll_length,
        )
        begun = time.monotonic()
        first = trainer.teacher_update
        with stop_requests("after this teacher update") as stop:
            for _ in (progress := self._progress(first)):
                report, seconds = self._record.make_update()
                done = trainer.teacher_update - first
                left = (time.monotonic() - begun) / done * (plan.teacher_updates - trainer.teacher_update)
                progress.log(_statistics(report, seconds, left), tag="teacher", step=trainer.teacher_update)
                _tell_of_error(report)
                stop.raise_if_made()
        self._record.finish()

    # --- measures ---------------------------------------------------------------------------------------------

    def _measure(self, teacher_update: int):
        pairs = self._student.dev.teaching
        # A new draw of pairs for each update, from numbers alone: a resumed run draws the same.
        chosen = random.Random(f"{self.options.plan.seed} {teacher_update}").sample(
            pairs, min(len(pairs), self.options.student.namespace.dev_batch)
        )
        return self._dev_objective(chosen, teacher_update)

    def _holdout(self) -> float:
        return self._dev_objective(self._student.dev.holdout, self.trainer.teacher_update)[0]

    def _dev_objective(self, pairs: Sequence[int], draw: int = 0):
        options = self.options
        return self._student.dev_objective(
            options.objective,
            pairs=pairs,
            samples=options.samples,
            estimator=options.estimator,
            alpha=options.alpha,
            seed=options.plan.seed * 1_000_003 + draw,
        )

    def _observe_dev(self) -> None:
        self._student.observe_dev(self._student.dev.teaching)

    # --- files ------------------------------------------------------------------------------------------------

    def _save(self, path: Path, states: list[dict[str, float]]) -> None:
        options, shape = self.options, self.options.student.loss_shape
        drawn = {"estimator": options.estimator, "samples": options.samples}
        extra = {
            "objective": options.objective,
            **(drawn if options.objective == "expected-bleu" else {}),
            "teacher_update": self.trainer.teacher_update,
            "plan": asdict(options.plan),
            "arguments": list(options.arguments),
            "states": states,
        }
        settings = TeacherSettings(
            shape.scale,
            shape.cross_entropy_mix,
            options.plan.total_updates,
            options.student.cross_entropy_updates,
            extra,
            shape.level,
        )
        save_teacher(path, self.trainer.teacher, self._vocabulary, settings)

    # --- progress ---------------------------------------------------------------------------------------------

    def _progress(self, first: int):
        common = self.options.student.cfg.common
        return progress_bar.progress_bar(
            CountingIterator(
                range(first, self.options.plan.teacher_updates), start=first, total=self.options.plan.teacher_updates
            ),
            log_format=common.log_format,
            log_interval=1,
            log_file=common.log_file,
            prefix="teacher",
            tensorboard_logdir=common.tensorboard_logdir,
            default_log_format="simple" if common.no_progress_bar else "tqdm",
        )


def _of_presets(options: RunOptions, saved: tuple[dict, dict]) -> str:
    """Tell where the other options of a resumed run come from, if a preset has put one there."""
    then, now = saved[1]["options"], options.fixed()
    if not any(then.get(name) != now[name] for name in options.left_to_preset()):
        return ""
    return (
        f" (what is not given is that of --preset {options.student.namespace.preset} now; that of runs of before "
        "there were presets is that of --preset paper)"
    )


def _statistics(report: UpdateReport, seconds: float, left: float) -> dict[str, Any]:
    chosen = ("progress", "measure", "holdout_measure", "hypergradient_norm", "adjoint_norm", "hypergradient_error")
    values = {name: getattr(report, name) for name in (*chosen, "phi_min", "phi_mean", "phi_max", "phi_off_diagonal")}
    values["recomputed_updates"] = report.recomputed_updates or None
    shown = {name: float(f"{value:.4g}") for name, value in values.items() if value is not None}
    return {**shown, "seconds": round(seconds, 2), "eta_seconds": round(left)}


def _tell_of_error(report: UpdateReport) -> None:
    if report.hypergradient_error is not None:
        logger.info(
            "--hvp finite-difference: the hypergradient of the first window is %.2g %% off the exact one",
            100 * report.hypergradient_error,
        )
