"""Runs of ``l2t-classify`` on a folder: a teacher's training, a student's training. Both can be stopped and resumed."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from fairseq_l2t.classification.checkpoint import save_checkpoint
from fairseq_l2t.classification.classifier_student import ClassifierStudent
from fairseq_l2t.classification.data import Splits
from fairseq_l2t.classification.options import (
    TrainOptions,
    TrainTeacherOptions,
    criterion_of,
    data_of,
    data_options_of,
    loss_shape_of,
    plan_of,
    recipe_of,
)
from fairseq_l2t.classification.progress import run_progress, teacher_progress
from fairseq_l2t.classification.recipe import Recipe
from fairseq_l2t.classification.saved_training import StudentLogRecord, check_saved_training
from fairseq_l2t.classification.teaching import ImageObjective, ImageStudents, read_teacher, require_same_student
from fairseq_l2t.classification.training import StudentTraining, Validation
from fairseq_l2t.storage import TeacherFile, lock_run_folder, save_run_state
from fairseq_l2t.storage.json_log import JsonLog
from fairseq_l2t.teaching.interruption import stop_requests
from fairseq_l2t.teaching.options.comparison import (
    ResumeError,
    fixed_options,
    refuse_other_inputs,
    refuse_other_options,
)
from fairseq_l2t.teaching.options.config_file import file_values, write_config
from fairseq_l2t.teaching.progress_display import StepDisplay
from fairseq_l2t.teaching.record import SavedState, require_run, saved_run
from fairseq_l2t.teaching.run import RunSetup, run_teaching

__all__ = ["BEST_CHECKPOINT", "STUDENT_LOG", "new_training", "train_student", "train_teacher"]

_IMAGES = "images_sha256"
"""Name, among the options of a saved run, of the digest of its images and labels."""

_WHAT = "the training of a student"

BEST_CHECKPOINT, STUDENT_LOG = "checkpoint_best.safetensors", "train_log.jsonl"

logger = logging.getLogger(__name__)


def train_teacher(options: TrainTeacherOptions) -> None:
    """Make the remaining teacher updates in ``--save-dir``.

    Raises:
        ValueError: an option, a file, or a run state that cannot be used (its subclasses too).
        Interrupted: a signal was received; the state after the current update is saved.
        NonFiniteError: too many windows in a row ended in NaN or infinity.
    """
    recipe, plan, shape = recipe_of(options), plan_of(options), loss_shape_of(options)
    splits = data_of(options)
    setup = RunSetup(
        folder=Path(options.save_dir),
        plan=plan,
        resume=options.resume,
        fixed=_fixed(options, splits),
        config=file_values(options),
        resume_or_start=options.resume_or_start,
    )

    def build(saved: SavedState | None) -> tuple[ImageStudents, ImageObjective]:
        _require_same_images(saved, splits, options)
        student = ClassifierStudent(splits, recipe, loss_shape=shape, dev_holdout=options.dev_holdout)
        return ImageStudents(options, student), ImageObjective(options, student)

    run_teaching(setup, build, lambda done: teacher_progress(options))


def train_student(options: TrainOptions) -> Validation:
    """Train the student of ``--save-dir`` to the end; return its best validation. Raises as `train_teacher`."""
    if options.resume:
        require_run(options.save_dir, _WHAT)
    with lock_run_folder(options.save_dir) as folder:
        resume = options.resume or options.resume_or_start
        saved = saved_run(folder, resume=resume, check=check_saved_training, what=_WHAT)
        training = new_training(options)
        student, recipe, splits = training.student, training.student.recipe, training.student.splits
        fixed, fingerprints = _fixed(options, splits), _teacher_fingerprint(options, splits)
        if saved is not None:
            _require_same_images(saved, splits, options)
            tensors, values = saved
            refuse_other_options(values["options"], fixed)
            if options.teacher_path is not None:
                refuse_other_inputs(values.get("fingerprints"), fingerprints)
            training.load_state_dict(tensors, values)
            logger.info("resumed at update %d", student.update)
        write_config(folder, file_values(options))
        log = JsonLog(folder / STUDENT_LOG, StudentLogRecord, "update")
        log.keep_until(student.update)
        kept = {
            "options": fixed_options(options),
            "data": data_options_of(options),
            "protocol": splits.protocol,
            "images_sha256": fixed[_IMAGES],
        }
        with (
            run_progress(options) as progress,
            stop_requests(lambda: "after the next validation") as stop,
        ):
            pace = _Pace(student.update, recipe.total_updates)
            while not training.is_over:
                start = time.monotonic()
                found = training.run_to_validation(lambda: pace.show(student.update, progress.steps))
                line = {**found.in_percent(), "seconds": round(time.monotonic() - start, 3)}
                log.append(line)
                if training.best is found:
                    save_checkpoint(folder / BEST_CHECKPOINT, recipe, student.omega, {**kept, **found.in_percent()})
                tensors, values = training.state_dict()
                save_run_state(folder, tensors, {**values, "options": fixed, "fingerprints": fingerprints})
                progress.show(student.update, {"dev_error": found.in_percent()["dev_error"]})
                stop.raise_if_made()
    return training.best_validation


class _Pace:
    """Estimates the time that the remaining updates of a student take.

    Args:
        first: updates made before.
        total: updates of its life.
    """

    def __init__(self, first: int, total: int) -> None:
        self._first, self._total, self._begun = first, total, time.monotonic()

    def show(self, update: int, steps: StepDisplay) -> None:
        """Show that ``update`` updates are made."""
        left = (time.monotonic() - self._begun) / (update - self._first) * (self._total - update)
        steps.show(update / self._total, f"update {update} of {self._total}", left)


def new_training(options: TrainOptions) -> StudentTraining:
    """Return a student at the beginning of its life under the loss that the options of ``train`` name.

    Raises:
        ValueError: an option, images or a teacher file that cannot be used (its subclasses too).
    """
    criterion, recipe, splits = criterion_of(options), recipe_of(options), data_of(options)
    file, teacher, shape = None, None, None
    if criterion is None and options.teacher_path is not None:
        file = read_teacher(options.teacher_path, splits.train.classes)
        teacher, shape = file.teacher, file.settings.loss_shape
        recipe = _as_taught(recipe, file)
    student = ClassifierStudent(splits, recipe, loss_shape=shape, criterion=criterion, dev_holdout=options.dev_holdout)
    if file is not None:
        require_same_student(file, student)
        _warn_of_other_images(file, options)
    return StudentTraining(
        student,
        teacher,
        seed=options.seed,
        validate_every=options.validate_interval_updates or 0,
        patience=options.patience,
    )


def _fixed(options: TrainOptions | TrainTeacherOptions, splits: Splits) -> dict[str, Any]:
    """Return the options that a resumed run must share, with the digest of the images."""
    return {**fixed_options(options), _IMAGES: splits.sha256}


def _teacher_fingerprint(options: TrainOptions, splits: Splits) -> dict[str, str]:
    """Return the SHA-256 of the teacher by its name in messages; nothing without a teacher."""
    if options.teacher_path is None:
        return {}
    return {"the teacher of --teacher-path": read_teacher(options.teacher_path, splits.train.classes).sha256}


def _require_same_images(saved: SavedState | None, splits: Splits, options: TrainOptions | TrainTeacherOptions) -> None:
    if saved is not None and saved[1]["options"].get(_IMAGES) != splits.sha256:
        raise ResumeError(f"--data-dir: {options.data_dir}; holds other images or labels than the run was started with")


def _warn_of_other_images(file: TeacherFile, options: TrainOptions) -> None:
    """Warn if test images of the student may be among those that trained the teacher."""
    recorded, now = file.settings.extra.get("data"), data_options_of(options)
    then = recorded if isinstance(recorded, dict) else {}
    changed = [
        f"--{name.replace('_', '-')} {then[name]} then, {now[name]} now"
        for name in ("data", "split_seed", "dev_size")
        if name in then and then[name] != now[name]
    ]
    if changed:
        logger.warning(
            "%s: taught on another division of the images, which may hold test images of this student: %s",
            file.path,
            "; ".join(changed),
        )


def _as_taught(recipe: Recipe, file: TeacherFile) -> Recipe:
    """Return the recipe with the cross-entropy updates of the lives the teacher was trained on."""
    begin = file.settings.cross_entropy_updates
    if recipe.cross_entropy_updates not in (0, begin):
        raise ValueError(
            f"--cross-entropy-updates: {recipe.cross_entropy_updates}; the teacher {file.path} was trained with {begin}"
        )
    return replace(recipe, cross_entropy_updates=begin)
