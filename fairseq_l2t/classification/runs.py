"""Runs of ``l2t-classify`` on a folder: a teacher's training, a student's training. Both can be stopped and resumed."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from fairseq_l2t.classification.checkpoint import save_checkpoint
from fairseq_l2t.classification.classifier_student import ClassifierStudent
from fairseq_l2t.classification.data import Splits
from fairseq_l2t.classification.options import (
    criterion_of,
    data_of,
    data_options_of,
    loss_shape_of,
    plan_of,
    recipe_of,
)
from fairseq_l2t.classification.recipe import Recipe
from fairseq_l2t.classification.teaching import (
    dev_objective,
    new_teacher,
    new_trainer,
    read_teacher,
    require_same_student,
    write_teacher,
)
from fairseq_l2t.classification.training import StudentTraining, Validation
from fairseq_l2t.storage import TeacherFile, lock_run_folder, save_run_state, write_atomically
from fairseq_l2t.teaching.interruption import stop_requests
from fairseq_l2t.teaching.record import ResumeError, TeachingRecord, refuse_other_options, saved_run, warn_of_bad_window
from fairseq_l2t.teaching.trainer import UpdateReport
from fairseq_l2t.unroll.memory.budget import bytes_of, half_of_memory, memory_plan
from fairseq_l2t.unroll.memory.peak import peak_bytes
from fairseq_l2t.unroll.memory.plan import MemoryPlan, layout_for

__all__ = ["BEST_CHECKPOINT", "STUDENT_LOG", "new_training", "train_student", "train_teacher"]

_IMAGES = "images_sha256"

BEST_CHECKPOINT, STUDENT_LOG = "checkpoint_best.safetensors", "train_log.jsonl"

_MAY_CHANGE = frozenset(
    ("command", "save_dir", "resume", "no_progress_bar", "tensorboard_logdir", "teacher_updates", "max_bad_steps")
    + ("data_dir", "memory_budget")
)
"""Options a resumed run may be given anew: none of them changes what an update computes."""

logger = logging.getLogger(__name__)


def train_teacher(options: Namespace) -> None:
    """Make the teacher updates that are left in ``--save-dir``.

    Raises:
        ValueError: an option, a file, or a run state that cannot be used (its subclasses too).
        Interrupted: a signal came; the state after the update then under way is saved.
        NonFiniteError: too many windows in a row ended in NaN or infinity.
    """
    recipe, plan, shape = recipe_of(options), plan_of(options), loss_shape_of(options)
    with lock_run_folder(options.save_dir) as folder:
        saved, splits = saved_run(folder, resume=options.resume), data_of(options)
        _require_same_images(saved, splits, options)
        student = ClassifierStudent(splits, recipe, loss_shape=shape, dev_holdout=options.dev_holdout)
        teacher = new_teacher(
            student,
            keys=options.teacher_keys,
            initial_coefficient=options.initial_coefficient,
            seed=options.seed,
            stage_spread=options.stage_spread,
            initial_off_diagonal=options.initial_off_diagonal,
        )
        trainer = new_trainer(
            student,
            teacher,
            plan,
            objective=options.objective,
            dev_batch=options.dev_batch,
            dev_interval=options.validate_interval_updates,
            memory=_memory_plan(options, student, plan.kept_length),
            on_bad_window=warn_of_bad_window,
        )

        def save(path: Path, states: list[dict[str, float]]) -> None:
            extra = {
                "objective": options.objective,
                "teacher_update": trainer.teacher_update,
                "plan": asdict(plan),
                "states": states,
                "data": data_options_of(options),
                "validate_interval_updates": options.validate_interval_updates,
                "classes": list(student.splits.train.classes),
            }
            write_teacher(path, teacher, student, shape, extra)

        record = TeachingRecord(folder, trainer, _fixed(options, splits), save, saved)
        with (
            _progress(options, trainer.teacher_update, plan.teacher_updates, "teacher updates") as progress,
            stop_requests("after this teacher update") as stop,
        ):
            while trainer.teacher_update < plan.teacher_updates:
                report, seconds = record.make_update()
                progress.show(trainer.teacher_update, {**_numbers_of(report), "seconds": seconds})
                stop.raise_if_made()
        record.finish()


def train_student(options: Namespace) -> Validation:
    """Train the student of ``--save-dir`` to the end; return its best validation. Raises as `train_teacher`."""
    with lock_run_folder(options.save_dir) as folder:
        saved = saved_run(folder, resume=options.resume, what="the training of a student")
        training = new_training(options)
        student, recipe, splits = training.student, training.student.recipe, training.student.splits
        fixed = _fixed(options, splits)
        if saved is not None:
            _require_same_images(saved, splits, options)
            tensors, values = saved
            refuse_other_options(values["options"], fixed)
            training.load_state_dict(tensors, values)
            logger.info("resumed at update %d", student.update)
        log = folder / STUDENT_LOG
        _keep_lines(log, student.update)
        kept = {
            "options": _fixed(options),
            "data": data_options_of(options),
            "protocol": splits.protocol,
            "images_sha256": fixed[_IMAGES],
        }
        with (
            _progress(options, student.update, recipe.total_updates, "updates") as progress,
            stop_requests("after the next validation") as stop,
        ):
            while not training.is_over:
                start = time.monotonic()
                found = training.run_to_validation()
                line = {**asdict(found), "seconds": round(time.monotonic() - start, 3)}
                with log.open("a", encoding="utf-8") as lines:
                    lines.write(json.dumps(line) + "\n")
                if training.best is found:
                    save_checkpoint(folder / BEST_CHECKPOINT, recipe, student.omega, {**kept, **asdict(found)})
                tensors, values = training.state_dict()
                save_run_state(folder, tensors, {**values, "options": fixed})
                progress.show(student.update, {"dev_error": found.dev_error})
                stop.raise_if_made()
    return training.best


def new_training(options: Namespace) -> StudentTraining:
    """Return a student at the beginning of its life under the loss that the options of ``train`` name.

    Raises:
        ValueError: an option, images or a teacher file that cannot be used (its subclasses too).
    """
    criterion, recipe, splits = criterion_of(options), recipe_of(options), data_of(options)
    teacher, shape = None, None
    if criterion is None:
        file = read_teacher(options.teacher_path, splits.train.classes)
        teacher, shape = file.teacher, file.settings.loss_shape
        recipe = _as_taught(recipe, file)
    student = ClassifierStudent(splits, recipe, loss_shape=shape, criterion=criterion, dev_holdout=options.dev_holdout)
    if criterion is None:
        require_same_student(file, student)
        _warn_of_other_images(file, options)
    return StudentTraining(
        student, teacher, seed=options.seed, validate_every=options.validate_interval_updates, patience=options.patience
    )


class _Progress:
    """A bar on a terminal, log lines elsewhere, and TensorBoard where it is asked for."""

    def __init__(self, bar: tqdm | None, writer: Any) -> None:
        self._bar, self._writer = bar, writer

    def show(self, done: int, numbers: Mapping[str, float]) -> None:
        """Tell that ``done`` updates are made, and what was measured."""
        text = {name: f"{value:.4g}" for name, value in numbers.items()}
        if self._bar is None:
            logger.info("%d: %s", done, ", ".join(f"{name} {value}" for name, value in text.items()))
        else:
            self._bar.set_postfix(text, refresh=False)
            self._bar.update(done - self._bar.n)
        if self._writer is not None:
            for name, value in numbers.items():
                self._writer.add_scalar(name, value, done)


@contextmanager
def _progress(options: Namespace, done: int, total: int, unit: str) -> Iterator[_Progress]:
    bar = None
    if not options.no_progress_bar and sys.stderr.isatty():
        bar = tqdm(total=total, initial=done, unit=f" {unit}", dynamic_ncols=True)
    writer = _tensorboard(options.tensorboard_logdir)
    try:
        yield _Progress(bar, writer)
    finally:
        if bar is not None:
            bar.close()
        if writer is not None:
            writer.close()


def _tensorboard(folder: str | None) -> Any:
    if folder is None:
        return None
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ValueError(
            f"--tensorboard-logdir: {folder}; needs pip install 'fairseq_l2t[inspection]' ({error})"
        ) from error
    return SummaryWriter(folder)


def _numbers_of(report: UpdateReport) -> dict[str, float]:
    names = ("measure", "holdout_measure", "hypergradient_norm", "adjoint_norm", "phi_min", "phi_mean", "phi_max")
    found = {name: getattr(report, name) for name in names}
    return {name: value for name, value in found.items() if value is not None}


def _memory_plan(options: Namespace, student: ClassifierStudent, steps: int) -> MemoryPlan:
    if options.memory_budget is None:
        return memory_plan(half_of_memory(student.omega.device))
    budget = bytes_of(options.memory_budget)
    reserve = peak_bytes(lambda: dev_objective(student, options.objective, student.teaching))
    # Refused before anything is written, where no window fits in.
    layout_for(steps, vector=student.omega.nbytes, buffers=len(student.buffers), budget=budget, reserve=reserve)
    return memory_plan(budget, reserve=reserve)


def _fixed(options: Namespace, splits: Splits | None = None) -> dict[str, Any]:
    """Return the options that a resumed run must share, with the digest of ``splits``."""
    found = {name: value for name, value in sorted(vars(options).items()) if name not in _MAY_CHANGE}
    return found if splits is None else {**found, _IMAGES: splits.sha256}


def _require_same_images(saved: tuple[dict, dict] | None, splits: Splits, options: Namespace) -> None:
    if saved is None:
        return
    then = saved[1]["options"].setdefault(_IMAGES, splits.sha256)  # runs of before have none
    if then != splits.sha256:
        raise ResumeError(f"--data-dir: {options.data_dir}; holds other images or labels than the run was started with")


def _warn_of_other_images(file: TeacherFile, options: Namespace) -> None:
    """Tell where test images of the student may be among those that taught the teacher."""
    then, now = file.settings.extra.get("data") or {}, data_options_of(options)
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


def _keep_lines(log: Path, update: int) -> None:
    """Drop lines of updates that are made again: they were written after the state that is resumed."""
    if os.path.exists(log):
        lines = log.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["update"] <= update]
        write_atomically(log, ["".join(kept).encode()])
