"""The folder of a teacher training: the teachers, a JSON line for each update, and the state for resuming the run."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from fairseq_l2t.storage import TeacherFileError, load_teacher
from fairseq_l2t.storage.json_log import JsonLog, TeacherLogRecord
from fairseq_l2t.storage.run_state import StateCheck, has_run_state, load_run_state, save_run_state
from fairseq_l2t.teaching.options.comparison import ResumeError, refuse_other_options
from fairseq_l2t.teaching.trainer import TeacherTrainer
from fairseq_l2t.teaching.update_report import UpdateReport
from fairseq_l2t.unroll.student import NonFiniteError

__all__ = [
    "BEST_NAME",
    "LAST_NAME",
    "LOG_NAME",
    "TeachingRecord",
    "require_run",
    "saved_run",
    "warn_of_bad_window",
]

BEST_NAME, LAST_NAME, LOG_NAME = "teacher.safetensors", "teacher_last.safetensors", "teacher_log.jsonl"

logger = logging.getLogger(__name__)

SavedState = tuple[dict[str, Tensor], dict[str, Any]]
"""Tensors and plain values of a stopped run."""


def require_run(folder: str | os.PathLike[str], what: str = "teacher training") -> None:
    """Refuse to continue a run that does not exist, before its folder is created; ``what`` names the kind of run.

    Raises:
        ResumeError: no state in ``folder``.
    """
    if not has_run_state(folder):
        raise ResumeError(
            f"--resume: --save-dir {folder} contains no saved run of {what}; check the folder, leave --resume out to "
            "start a run, or give --resume-or-start"
        )


def saved_run(
    folder: str | os.PathLike[str], *, resume: bool, check: StateCheck, what: str = "teacher training"
) -> SavedState | None:
    """Return the saved state in ``folder``, or None.

    Args:
        folder: folder of the run.
        resume: whether a run is to be continued.
        check: check of a state; see `storage.run_state.load_run_state`.
        what: name of the kind of run in messages.

    Raises:
        ResumeError: there is a state, and ``resume`` is not set; or there is none, and the folder holds a teacher.
        RunStateError: a state that cannot be used.
    """
    if has_run_state(folder) and not resume:
        raise ResumeError(
            f"--save-dir: {folder} contains a run of {what}; give --resume to continue it, or another folder"
        )
    saved = load_run_state(folder, check)
    if saved is None:
        _refuse_to_overwrite(Path(folder))
    if saved is None and resume:
        logger.info("--resume-or-start: no run in %s yet; starting one", folder)
    return saved


def _refuse_to_overwrite(folder: Path) -> None:
    """Refuse a folder without a run state that holds a trained teacher, or another file of a teacher's name.

    A run that was killed in its first update leaves a teacher of 0 or 1 updates, which is made again.

    Raises:
        ResumeError: names the file.
    """
    for path in (folder / BEST_NAME, folder / LAST_NAME):
        if not path.exists():
            continue
        try:
            updates = load_teacher(path).settings.extra.get("teacher_update", 0)
        except (TeacherFileError, OSError):
            updates = None
        if updates not in (0, 1):
            raise ResumeError(
                f"--save-dir: {folder} contains {path.name} of another run, without a run state to resume; give "
                "another folder, or move that file"
            )


class TeachingRecord:
    """Makes teacher updates; after each, all files of the folder are consistent.

    Args:
        folder: locked by the caller.
        trainer: new; ``saved`` is loaded into it.
        options: those that a resumed run must share, JSON-able.
        save_teacher: (path, states) -> None; writes the trainer's teacher. ``states`` are those of the newest
            life of a student, by feature name.
        saved: what `saved_run` returned.
        given, preset: see `teaching.options.comparison.refuse_other_options`.
        is_written: whether this process writes the files; of several, the first one does.
        fingerprints: SHA-256 of the inputs of the run, by name; saved for `comparison.refuse_other_inputs`.

    Raises:
        ResumeError: ``saved`` is of a run with other options.
        OSError: the log cannot be read or written (path named).
    """

    def __init__(
        self,
        folder: Path,
        trainer: TeacherTrainer,
        options: Mapping[str, Any],
        save_teacher: Callable[[Path, list[dict[str, float]]], None],
        saved: SavedState | None,
        *,
        given: Collection[str] | None = None,
        preset: str = "",
        fingerprints: Mapping[str, str] | None = None,
        is_written: bool = True,
    ) -> None:
        self._folder, self.trainer, self._options, self._save_teacher = folder, trainer, dict(options), save_teacher
        self._fingerprints, self._is_written = dict(fingerprints or {}), is_written
        self._states: list[dict[str, float]] = []
        self._states_end = 0
        self._best_update: int | None = None
        if saved is not None:
            refuse_other_options(saved[1]["options"], self._options, given, preset)
            self._restore(*saved)
        self._log = JsonLog(folder / LOG_NAME, TeacherLogRecord, "teacher_update")
        if is_written:
            self._keep_log_until(trainer.teacher_update)

    def make_update(self) -> tuple[UpdateReport, float]:
        """Make one teacher update and save it; return its report and its duration in seconds.

        Raises:
            NonFiniteError: see `teaching.trainer.TeacherTrainer.run_update`; the files are those of the last
                good update.
        """
        start = time.monotonic()
        report = self.trainer.run_update(self._keep_best)
        if report.student_update <= self._states_end:
            self._states = []
        self._states += report.states
        self._states_end = report.student_update
        seconds = time.monotonic() - start
        if not self._is_written:
            return report, seconds
        self._log.append({**asdict(report), "seconds": round(seconds, 3)})
        # The state goes last: what it does not know of is done again after a crash, with the same outcome.
        self._save(LAST_NAME)
        self._save_state()
        return report, seconds

    def finish(self) -> None:
        """Write `BEST_NAME` if no teacher was judged, and log which teacher it is."""
        plan, is_judged = self.trainer.plan, self.trainer.best_holdout is not None
        if self.trainer.teacher_update == 0:
            logger.info("--teacher-updates 0: writing the initial teacher, a fixed loss to compare with")
            self._save(BEST_NAME)
            self._save_state()  # so that no other run is begun here without --resume
        elif not plan.dev_holdout:
            logger.info("teacher: %s (the last one; --dev-holdout 0 judges none)", self._folder / BEST_NAME)
        elif not self.trainer.has_ended_a_life:
            windows = -(-(plan.total_updates - self.trainer.student.cross_entropy_updates) // plan.unroll_length)
            logger.warning(
                "no life of a student was completed, so no trained teacher was judged on held-back pairs: %s is the "
                "%s; give --teacher-updates %d or more (%d windows of %d updates are one life)",
                BEST_NAME,
                f"initial teacher, {LAST_NAME} the last one" if is_judged else "last teacher",
                windows,
                windows,
                plan.unroll_length,
            )
        elif not is_judged:
            logger.warning(
                "no completed life has a finite measure on held-back pairs: %s is the last teacher",
                BEST_NAME,
            )
        if not is_judged and self.trainer.teacher_update:
            self._save(BEST_NAME)
        if not plan.dev_holdout:
            return
        update = "" if self._best_update is None else f"after teacher update {self._best_update}, "
        logger.info("teacher: %s (%sheld-back measure %s)", self._folder / BEST_NAME, update, self.trainer.best_holdout)

    def _keep_best(self) -> None:
        logger.info(
            "best teacher so far: after teacher update %d, %.4g on held-back pairs",
            self.trainer.teacher_update,
            self.trainer.best_holdout,
        )
        self._best_update = self.trainer.teacher_update
        self._save(BEST_NAME)

    def _save(self, name: str) -> None:
        if self._is_written:
            self._save_teacher(self._folder / name, self._states)

    def _save_state(self) -> None:
        if not self._is_written:
            return
        tensors, values = self.trainer.state_dict()
        values.update(
            options=self._options,
            states=self._states,
            states_end=self._states_end,
            best_update=self._best_update,
            fingerprints=self._fingerprints,
        )
        save_run_state(self._folder, tensors, values)

    def _restore(self, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        self.trainer.load_state_dict(tensors, values)
        self._states, self._states_end = values["states"], values["states_end"]
        self._best_update = values["best_update"]
        logger.info("resumed at teacher update %d", self.trainer.teacher_update)

    def _keep_log_until(self, teacher_update: int) -> None:
        kept = self._log.keep_until(teacher_update)
        missing = sorted(set(range(1, teacher_update + 1)) - set(kept))
        if missing:
            logger.warning(
                "%s: no record of %d of the %d teacher updates made, the first is %d",
                self._log.path,
                len(missing),
                teacher_update,
                missing[0],
            )


def warn_of_bad_window(error: NonFiniteError) -> None:
    """Log that a window ended in NaN or infinity."""
    logger.warning("%s; the teacher is unchanged, and a new life of a student begins", error)
