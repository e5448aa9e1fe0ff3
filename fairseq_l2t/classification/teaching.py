"""The image part of a teacher training: students, measure on dev, teacher files."""

from __future__ import annotations

import random
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from fairseq_l2t.classification.classifier_student import ClassifierStudent
from fairseq_l2t.classification.options import TrainTeacherOptions, data_options_of
from fairseq_l2t.kernels.twice_differentiable import outer_gradient
from fairseq_l2t.loss.teacher import Teacher
from fairseq_l2t.objectives import calibrated_perplexity, expected_token_accuracy, inverse_perplexity
from fairseq_l2t.objectives.dev_student import DevStudent
from fairseq_l2t.storage import TeacherFile, TeacherFileError, TeacherSettings, Vocabulary, load_teacher
from fairseq_l2t.teaching.options.declaration import OptionError
from fairseq_l2t.teaching.plan import TeachingPlan

__all__ = [
    "OBJECTIVES",
    "ImageObjective",
    "ImageStudents",
    "dev_objective",
    "new_teacher",
    "read_teacher",
    "require_same_student",
]

OBJECTIVES = {
    "expected-accuracy": expected_token_accuracy,  # the paper's: mean p(y | x), the expected 0-1 measure
    "inverse-perplexity": inverse_perplexity,
    "calibrated-perplexity": calibrated_perplexity,
}


def new_teacher(
    student: ClassifierStudent,
    *,
    keys: int,
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


class ImageStudents:
    """Classifiers as students of a run; see `teaching.run.StudentAdapter`.

    Args:
        options: of the run, resolved.
        student: built.
    """

    def __init__(self, options: TrainTeacherOptions, student: ClassifierStudent) -> None:
        self._options, self.student = options, student
        self.vocabulary = classes_of(student.splits.train.classes)
        self.fingerprints: dict[str, str] = {}  # the digest of the images is among the options that are compared

    def new_teacher(self, plan: TeachingPlan) -> Teacher:
        """Return the initial teacher."""
        return new_teacher(
            self.student,
            keys=plan.teacher_keys,
            initial_coefficient=plan.initial_coefficient,
            seed=plan.seed,
            stage_spread=plan.stage_spread,
            initial_off_diagonal=plan.initial_off_diagonal,
        )

    def observe_dev(self) -> None:
        """Update the dev measures of the student's state."""
        self.student.observe_dev()

    def settings(self, extra: dict[str, Any]) -> TeacherSettings:
        """Return the settings of the teacher file."""
        options, shape, recipe = self._options, self.student.loss_shape, self.student.recipe
        recorded = {
            "objective": options.objective,
            **extra,
            "data": data_options_of(options),
            "validate_interval_updates": options.validate_interval_updates,
            "classes": list(self.student.splits.train.classes),
            "recipe": asdict(recipe),
        }
        return TeacherSettings(
            shape.scale, shape.cross_entropy_mix, recipe.total_updates, recipe.cross_entropy_updates, recorded
        )


class ImageObjective:
    """The measure on dev images; see `teaching.run.Objective`.

    Args:
        options: of the run, resolved.
        student: built.

    Raises:
        OptionError: no dev image is held back.
    """

    def __init__(self, options: TrainTeacherOptions, student: ClassifierStudent) -> None:
        if student.dev_holdout and not student.holdout:
            raise OptionError(
                f"--dev-holdout: {student.dev_holdout} of {len(student.splits.dev)} dev images (--dev-size) is none; "
                "expected a share above 0 that leaves some to choose the teacher by"
            )
        self._options, self._student = options, student

    def measure(self, teacher_update: int) -> tuple[float, Tensor]:
        """Return the measure and its gradient (n,), on the images of a teacher update."""
        teaching, batch = self._student.teaching, self._options.dev_batch
        count = len(teaching) if batch is None else min(batch, len(teaching))
        # A new draw for each update, from numbers alone: a resumed run draws the same.
        draw = random.Random(f"{self._options.seed} {teacher_update}")
        return self._on(sorted(draw.sample(teaching, count)))

    def holdout(self, teacher_update: int) -> float:
        """Return the measure on the held-back images."""
        return self._on(self._student.holdout)[0]

    def largest(self) -> object:
        """Compute the measure on all images that train the teacher."""
        return self._on(self._student.teaching)

    def _on(self, images: list[int]) -> tuple[float, Tensor]:
        return dev_objective(self._student, self._options.objective, images)


def dev_objective(student: ClassifierStudent, objective: str, images: list[int]) -> tuple[float, Tensor]:
    """Return a measure in [0, 1] on dev images, in eval mode, and its exact gradient (n,) at omega."""
    with student.second_derivatives(), outer_gradient():
        found = OBJECTIVES[objective](cast(DevStudent, student), images)  # they draw no hypotheses
    return found.value, found.gradient


def read_teacher(path: str | Path, classes: tuple[str, ...]) -> TeacherFile:
    """Return the content of a teacher file for these classes.

    Raises:
        TeacherFileError: see `storage.load_teacher`; a teacher of translation models is refused too.
    """
    return load_teacher(path, vocabulary=classes_of(classes), forms=("full",))


def classes_of(classes: tuple[str, ...]) -> Vocabulary:
    """Return the classes as a teacher file names them: their number and fingerprint."""
    return Vocabulary.of_symbols(classes)


def require_same_student(file: TeacherFile, student: ClassifierStudent) -> None:
    """Refuse a teacher that was trained on other state features.

    Raises:
        TeacherFileError: other features.
    """
    if tuple(file.teacher.features) != tuple(student.state.features):
        raise TeacherFileError(
            f"{file.path}: trained on the features {', '.join(file.teacher.features)}; this student has "
            f"{', '.join(student.state.features)}"
        )
