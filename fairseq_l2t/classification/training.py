"""One life of a student under one loss, with validation, best parameters on dev, early stopping and resumption."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from torch import Tensor

from fairseq_l2t.classification.classifier_student import ClassifierStudent
from fairseq_l2t.loss.teacher import Teacher
from fairseq_l2t.storage.run_state import tensor_differences
from fairseq_l2t.unroll.trajectory import advance

__all__ = ["StudentTraining", "Validation"]


@dataclass(frozen=True)
class Validation:
    """Measures of one validation.

    Args:
        update: number of updates made.
        dev_error: share of wrong predictions, in [0, 1], on all dev images, held-back ones included.
        state: the student's state by feature name.
    """

    update: int
    dev_error: float
    state: dict[str, float]

    def in_percent(self) -> dict[str, Any]:
        """Return the measures as logs, checkpoints and ``l2t-classify evaluate`` give them: errors in percent."""
        return {**asdict(self), "dev_error": round(100 * self.dev_error, 4)}


class StudentTraining:
    """Trains a student to the end of its life.

    Args:
        student: a new life begins; `load_state_dict` continues another.
        teacher: frozen; None: the student's own criterion for all updates.
        seed: of the life.
        validate_every: updates between two validations, which also refresh the state the teacher sees: the
            ``--validate-interval-updates`` the teacher was trained with.
        patience: validations without a new best after which training stops; 0: never.

    Raises:
        ValueError: an interval below 1 or a patience below 0.
    """

    def __init__(
        self, student: ClassifierStudent, teacher: Teacher | None, *, seed: int, validate_every: int, patience: int = 0
    ) -> None:
        if validate_every < 1:
            raise ValueError(f"--validate-interval-updates: {validate_every}; expected a whole number of at least 1")
        if patience < 0:
            raise ValueError(f"--patience: {patience}; expected a whole number of at least 0")
        self.student, self._teacher = student, teacher
        self._every, self._patience = validate_every, patience
        student.cross_entropy_updates = (
            student.recipe.total_updates if teacher is None else student.recipe.cross_entropy_updates
        )
        student.restart(seed)
        self.best: Validation | None = None
        self.best_omega: Tensor | None = None
        self._without_best = 0

    @property
    def is_over(self) -> bool:
        """Whether all updates are made or patience is exhausted."""
        is_patient = not self._patience or self._without_best < self._patience
        return self.student.update >= self.student.recipe.total_updates or not is_patient

    def run(self, after_each: Callable[[Validation], None] = lambda validation: None) -> Validation:
        """Train to the end and return the best validation.

        Args:
            after_each: called after every validation.

        Raises:
            NonFiniteError: NaN or infinity in a loss or gradient.
        """
        while not self.is_over:
            after_each(self.run_to_validation())
        return self.best_validation

    @property
    def best_validation(self) -> Validation:
        """The best validation so far.

        Raises:
            ValueError: before the first validation.
        """
        if self.best is None:
            raise ValueError("no validation yet; expected at least one update")
        return self.best

    def run_to_validation(self, after_update: Callable[[], None] = lambda: None) -> Validation:
        """Make the updates to the next multiple of the interval, or to the end, and validate.

        ``after_update`` is called after every update.
        """
        student = self.student
        left = student.recipe.total_updates - student.update
        updates = min(self._every - student.update % self._every, left)
        # Without a teacher every update is plain cross-entropy, which asks none.
        advance(student, self._teacher, updates, after_update)  # type: ignore[arg-type]  # None: no teacher is asked
        student.observe_dev()
        found = Validation(student.update, 1 - student.accuracy(student.splits.dev), student.state.state_dict())
        least = math.inf if self.best is None else self.best.dev_error
        self._without_best = 0 if found.dev_error < least else self._without_best + 1
        # Of equal ones the later: a few hundred dev images tie often, and learning rates fall.
        if found.dev_error <= least:
            self.best, self.best_omega = found, student.omega.clone()
        return found

    def state_dict(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return tensors and plain values for `load_state_dict`.

        Raises:
            ValueError: before the first validation.
        """
        tensors, values = self.student.state_dict()
        if self.best_omega is None:
            raise ValueError("no validation yet; expected at least one update")
        best = asdict(self.best_validation)
        return {**tensors, "best_omega": self.best_omega}, {**values, "best": best, "without_best": self._without_best}

    def load_state_dict(self, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        """Continue an interrupted training.

        Raises:
            ValueError: the training of a student of another size.
        """
        expected = {**self.student.state_dict()[0], "best_omega": self.student.omega}
        problems = tensor_differences(tensors, expected)
        problems += [f"tensor {name} is not expected" for name in tensors if name not in expected]
        if problems:
            raise ValueError(f"--resume: the run state does not fit this student: {'; '.join(problems)}")
        self.student.load_state_dict(tensors, values)
        self.best, self.best_omega = Validation(**values["best"]), tensors["best_omega"]
        self._without_best = values["without_best"]
