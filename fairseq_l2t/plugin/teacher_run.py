"""One run of ``l2t-train-teacher``: options, student, teacher, and a folder that survives interruption."""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from fairseq.data.iterators import CountingIterator
from fairseq.logging import progress_bar

from fairseq_l2t.core import NonFiniteError, Teacher
from fairseq_l2t.core.teacher_training import TeacherTrainer, UpdateReport
from fairseq_l2t.plugin.config import OptionError
from fairseq_l2t.plugin.doctor import quick_check
from fairseq_l2t.plugin.fairseq_student import FairseqStudent
from fairseq_l2t.plugin.run_options import RunOptions
from fairseq_l2t.plugin.task import vocabulary_of
from fairseq_l2t.plugin.window_memory import plan_of_run
from fairseq_l2t.storage import (
    TeacherSettings,
    load_run_state,
    lock_run_folder,
    save_run_state,
    save_teacher,
    write_atomically,
)

__all__ = ["BEST_NAME", "LAST_NAME", "LOG_NAME", "Interrupted", "TeacherRun"]

BEST_NAME, LAST_NAME, LOG_NAME = "teacher.safetensors", "teacher_last.safetensors", "teacher_log.jsonl"

logger = logging.getLogger(__name__)


class Interrupted(Exception):
    """The run was asked to stop, has saved its state and can be resumed; ``exit_code`` is 128 + signal."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}; --resume continues")
        self.exit_code = 128 + number


class TeacherRun:
    """A run on a locked folder.

    Args:
        options: the checked options.

    Raises:
        OptionError: the folder holds a run and ``--resume`` is not given, or options changed since it was started.
        DoctorError: the quick form of ``l2t-doctor`` found that the student's hypergradients cannot be trusted.
        RunStateError: a state that cannot be resumed.
    """

    def __init__(self, options: RunOptions) -> None:
        self.options = options
        saved = self._saved_state()
        self._student = student = FairseqStudent(options.student)
        if options.student.namespace.skip_quick_check:
            logger.warning("--skip-quick-check: nobody has looked whether this student's hypergradients are right")
        else:
            for check in quick_check(student):
                logger.info("quick check: %s", check)
        teacher = Teacher.for_student(
            student, keys=options.keys, seed=options.plan.seed,
            initial_coefficient=options.student.namespace.initial_coefficient,
            stage_spread=options.student.namespace.stage_spread,
        )  # fmt: skip
        self.trainer = TeacherTrainer(
            student, teacher, options.plan,
            measure=self._measure, holdout=self._holdout, observe_dev=self._observe_dev,
            dev_interval=max(0, options.student.cfg.dataset.validate_interval_updates), on_bad_window=_warn_of,
            memory=plan_of_run(options, student, self._dev_objective), hvp=options.student.namespace.hvp,
        )  # fmt: skip
        self._vocabulary = vocabulary_of(student.task.target_dictionary)
        self._states: list[dict[str, float]] = []
        self._states_end = 0
        self._stop: int | None = None
        if saved is not None:
            self._restore(*saved)
        self._log = options.folder / LOG_NAME
        self._keep_log_until(self.trainer.teacher_update)

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
        with self._signals():
            for _ in (progress := self._progress(first)):
                report, seconds = self._one_update()
                done = trainer.teacher_update - first
                left = (time.monotonic() - begun) / done * (plan.teacher_updates - trainer.teacher_update)
                progress.log(_statistics(report, seconds, left), tag="teacher", step=trainer.teacher_update)
                _tell_of_error(report)
                if self._stop is not None:
                    raise Interrupted(self._stop)
        self._finish()

    def _one_update(self) -> tuple[UpdateReport, float]:
        start = time.monotonic()
        report = self.trainer.run_update(self._keep_best)
        if report.student_update <= self._states_end:
            self._states = []
        self._states.append(report.state)
        self._states_end = report.student_update
        seconds = time.monotonic() - start
        with self._log.open("a", encoding="utf-8") as log:
            log.write(json.dumps({**asdict(report), "seconds": round(seconds, 3)}) + "\n")
        # The state goes last: what it does not know of is done again after a crash, with the same outcome.
        self._save(LAST_NAME)
        self._save_state()
        return report, seconds

    def _finish(self) -> None:
        if self.trainer.teacher_update == 0:
            logger.info("--teacher-updates 0: the teacher as it begins, a fixed loss to compare with")
            self._save(BEST_NAME)
            self._save_state()  # so that no other run is begun here without --resume
        elif self.trainer.best_holdout is None:
            logger.warning(
                "no student's life was completed, so no teacher was chosen on held-back pairs: %s is the last one "
                "(%d windows of %d updates are one life)", BEST_NAME,
                -(-self.options.plan.total_updates // self.options.plan.unroll_length), self.options.plan.unroll_length,
            )  # fmt: skip
            self._save(BEST_NAME)
        logger.info("teacher: %s (held-back measure %s)", self.options.folder / BEST_NAME, self.trainer.best_holdout)

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
            options.objective, pairs=pairs, samples=options.samples, estimator=options.estimator, alpha=options.alpha,
            seed=options.plan.seed * 1_000_003 + draw,
        )  # fmt: skip

    def _observe_dev(self) -> None:
        self._student.observe_dev(self._student.dev.teaching)

    def _keep_best(self) -> None:
        trainer = self.trainer
        logger.info("the best so far: after teacher update %d, %.4g on held-back pairs",
                    trainer.teacher_update, trainer.best_holdout)  # fmt: skip
        self._save(BEST_NAME)

    # --- files ------------------------------------------------------------------------------------------------

    def _saved_state(self) -> tuple[dict, dict] | None:
        saved = load_run_state(self.options.folder)
        if saved is not None and not self.options.resume:
            raise OptionError(
                f"--save-dir: {self.options.folder} holds a run of teacher training; give --resume to continue it, "
                "or another folder"
            )
        if saved is None and self.options.resume:
            logger.info("--resume: no run in %s yet; starting one", self.options.folder)
        return saved

    def _restore(self, tensors: dict, values: dict[str, Any]) -> None:
        then, now = values["options"], self.options.fixed()
        changed = [f"--{key.replace('_', '-')} {then.get(key)} then, {now.get(key)} now"
                   for key in sorted(then.keys() | now.keys()) if then.get(key) != now.get(key)]  # fmt: skip
        if changed:
            raise OptionError(f"--resume: the run was started with other options: {'; '.join(changed)}")
        self.trainer.load_state_dict(tensors, values)
        self._states, self._states_end = values["states"], values["states_end"]
        logger.info("resumed at teacher update %d", self.trainer.teacher_update)

    def _save(self, name: str) -> None:
        options, shape = self.options, self.options.student.loss_shape
        drawn = {"estimator": options.estimator, "samples": options.samples}
        extra = {
            "objective": options.objective,
            **(drawn if options.objective == "expected-bleu" else {}),
            "teacher_update": self.trainer.teacher_update,
            "plan": asdict(options.plan),
            "arguments": list(options.arguments),
            "states": self._states,
        }
        settings = TeacherSettings(
            shape.scale,
            shape.cross_entropy_mix,
            options.plan.total_updates,
            options.student.cross_entropy_updates,
            extra,
            shape.level,
        )
        save_teacher(options.folder / name, self.trainer.teacher, self._vocabulary, settings)

    def _save_state(self) -> None:
        tensors, values = self.trainer.state_dict()
        values.update(options=self.options.fixed(), states=self._states, states_end=self._states_end)
        save_run_state(self.options.folder, tensors, values)

    def _keep_log_until(self, teacher_update: int) -> None:
        """Drop lines of updates that are made again: they were written after the state that is resumed."""
        if self._log.exists():
            lines = self._log.read_text(encoding="utf-8").splitlines(keepends=True)[:teacher_update]
            write_atomically(self._log, ["".join(lines).encode()])

    # --- progress and signals ---------------------------------------------------------------------------------

    def _progress(self, first: int):
        common = self.options.student.cfg.common
        return progress_bar.progress_bar(
            CountingIterator(range(first, self.options.plan.teacher_updates), start=first,
                             total=self.options.plan.teacher_updates),
            log_format=common.log_format,
            log_interval=1,
            log_file=common.log_file,
            prefix="teacher",
            tensorboard_logdir=common.tensorboard_logdir,
            default_log_format="simple" if common.no_progress_bar else "tqdm",
        )  # fmt: skip

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """The first SIGTERM or SIGINT stops after the update under way is saved; the second at once."""

        def on_signal(number: int, frame: object) -> None:
            if self._stop is not None:
                os._exit(128 + number)  # every file is written atomically, so whatever is there is whole
            self._stop = number
            logger.warning("%s: stopping after this teacher update; again: at once", signal.Signals(number).name)

        before = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _statistics(report: UpdateReport, seconds: float, left: float) -> dict[str, Any]:
    chosen = ("progress", "measure", "holdout_measure", "hypergradient_norm", "adjoint_norm", "hypergradient_error")
    values = {name: getattr(report, name) for name in (*chosen, "phi_min", "phi_mean", "phi_max")}
    values["recomputed_updates"] = report.recomputed_updates or None
    shown = {name: float(f"{value:.4g}") for name, value in values.items() if value is not None}
    return {**shown, "seconds": round(seconds, 2), "eta_seconds": round(left)}


def _tell_of_error(report: UpdateReport) -> None:
    if report.hypergradient_error is not None:
        logger.info(
            "--hvp finite-difference: the hypergradient of the first window is %.2g %% off the exact one",
            100 * report.hypergradient_error,
        )


def _warn_of(error: NonFiniteError) -> None:
    logger.warning("%s; the teacher is left as it was, a new student's life begins", error)
