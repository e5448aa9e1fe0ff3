"""A teacher of classifiers: built, trained in whole or parted lives, written to and read from its file."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from fairseq_l2t.classification.classifier_student import ClassifierStudent
from fairseq_l2t.kernels.twice_differentiable import outer_gradient
from fairseq_l2t.loss.dynamic_loss import LossShape
from fairseq_l2t.loss.teacher import Teacher
from fairseq_l2t.objectives import calibrated_perplexity, expected_token_accuracy, inverse_perplexity
from fairseq_l2t.storage import TeacherFile, TeacherFileError, TeacherSettings, Vocabulary, load_teacher, save_teacher
from fairseq_l2t.teaching.plan import TeachingPlan
from fairseq_l2t.teaching.trainer import TeacherTrainer
from fairseq_l2t.unroll.memory.plan import MemoryPlan
from fairseq_l2t.unroll.student import NonFiniteError

__all__ = [
    "DEFAULT_KEYS",
    "OBJECTIVES",
    "dev_objective",
    "new_teacher",
    "new_trainer",
    "read_teacher",
    "require_same_student",
    "write_teacher",
]

DEFAULT_KEYS = 10
"""Number of keys N for classification (Wu et al. 2018, section 4.1)."""

OBJECTIVES = {
    "expected-accuracy": expected_token_accuracy,  # the paper's: mean p(y | x), the expected 0-1 measure
    "inverse-perplexity": inverse_perplexity,
    "calibrated-perplexity": calibrated_perplexity,
}


def new_teacher(
    student: ClassifierStudent,
    *,
    keys: int = DEFAULT_KEYS,
    initial_coefficient: float = 1.0,
    seed: int = 0,
    stage_spread: float = 0.0,
    initial_off_diagonal: float = 0.0,
) -> Teacher:
    """Return a teacher of a full Phi that starts near ``initial_coefficient`` times the identity.

    Beside the diagonal it starts at ``initial_off_diagonal``.

    Raises:
        ValueError: see `loss.teacher.Teacher`.
    """
    teacher = Teacher(
        student.state.features,
        student.classes,
        keys=keys,
        initial_coefficient=initial_coefficient,
        seed=seed,
        stage_spread=stage_spread,
        form="full",
        initial_off_diagonal=initial_off_diagonal,
    )
    return teacher.to(student.omega)


def new_trainer(
    student: ClassifierStudent,
    teacher: Teacher,
    plan: TeachingPlan,
    *,
    objective: str = "expected-accuracy",
    dev_batch: int | None = None,
    dev_interval: int = 0,
    memory: MemoryPlan | None = None,
    on_bad_window: Callable[[NonFiniteError], None] = lambda error: None,
) -> TeacherTrainer:
    """Return the trainer of ``teacher`` on lives of ``student``.

    Args:
        objective: a name in `OBJECTIVES`.
        dev_batch: dev images a measure is taken on, drawn anew for each teacher update; None: all that teach.
        dev_interval, memory, on_bad_window: see `teaching.trainer.TeacherTrainer`.

    Raises:
        ValueError: an unknown objective, or no dev images to hold back.
    """
    if objective not in OBJECTIVES:
        raise ValueError(f"--objective: {objective}; expected one of {', '.join(OBJECTIVES)}")
    if not student.holdout:
        raise ValueError(
            f"--dev-holdout: {student.dev_holdout} of {len(student.splits.dev)} dev images (--dev-size) is none; "
            "expected a share above 0 that leaves some to choose the teacher by"
        )
    if dev_batch is not None and dev_batch < 1:
        raise ValueError(f"--dev-batch: {dev_batch}; expected at least 1")

    def measure(teacher_update: int) -> tuple[float, Tensor]:
        count = len(student.teaching) if dev_batch is None else min(dev_batch, len(student.teaching))
        draw = random.Random(f"{plan.seed} {teacher_update}")
        return dev_objective(student, objective, sorted(draw.sample(student.teaching, count)))

    return TeacherTrainer(
        student,
        teacher,
        plan,
        measure=measure,
        holdout=lambda: dev_objective(student, objective, student.holdout)[0],
        observe_dev=student.observe_dev,
        dev_interval=dev_interval,
        memory=memory,
        on_bad_window=on_bad_window,
    )


def dev_objective(student: ClassifierStudent, objective: str, images: list[int]) -> tuple[float, Tensor]:
    """Return a measure in [0, 1] on dev images, in eval mode, and its exact gradient (n,) at omega."""
    with student.second_derivatives(), outer_gradient():
        found = OBJECTIVES[objective](student, images)
    return found.value, found.gradient


def write_teacher(
    path: Path, teacher: Teacher, student: ClassifierStudent, shape: LossShape, extra: dict[str, Any]
) -> None:
    """Write a teacher with what its students need; ``extra`` is any further JSON.

    Raises:
        ValueError, OSError: see `storage.save_teacher`.
    """
    recipe = student.recipe
    settings = TeacherSettings(
        shape.scale,
        shape.cross_entropy_mix,
        recipe.total_updates,
        recipe.cross_entropy_updates,
        {**extra, "recipe": asdict(recipe)},
    )
    save_teacher(path, teacher, classes_of(student.splits.train.classes), settings)


def read_teacher(path: str | Path, classes: tuple[str, ...]) -> TeacherFile:
    """Return what a teacher file for these classes holds.

    Raises:
        TeacherFileError: see `storage.load_teacher`; a teacher of translation models is refused too.
    """
    return load_teacher(path, vocabulary=classes_of(classes), forms=("full",))


def classes_of(classes: tuple[str, ...]) -> Vocabulary:
    """Return the classes as a teacher file names them: their number and fingerprint."""
    return Vocabulary.of_symbols(classes)


def require_same_student(file: TeacherFile, student: ClassifierStudent) -> None:
    """Refuse a teacher that would be shown another state than it was trained on.

    Raises:
        TeacherFileError: other features.
    """
    if tuple(file.teacher.features) != tuple(student.state.features):
        raise TeacherFileError(
            f"{file.path}: trained on the features {', '.join(file.teacher.features)}; this student has "
            f"{', '.join(student.state.features)}"
        )
