"""Error rates of trained students on test images, with confidence intervals over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, stdev
from typing import Any

from fairseq_l2t.classification.checkpoint import LONGEST_REASON, Checkpoint, CheckpointError, load_checkpoint
from fairseq_l2t.classification.classifier_student import ClassifierStudent
from fairseq_l2t.classification.data import Splits
from fairseq_l2t.classification.losses import build_criterion
from fairseq_l2t.classification.options import DataOptions, data_of
from fairseq_l2t.storage.schema import one_line

__all__ = ["Interval", "error_on_test", "evaluate", "interval_of"]


@dataclass(frozen=True)
class Interval:
    """A mean over seeds and its 95 % confidence interval (Student's t); half-width NaN for one seed."""

    mean: float
    half_width: float
    count: int

    def __str__(self) -> str:
        if self.count < 2:
            return f"{self.mean:.2f}"
        return f"{self.mean:.2f} ± {self.half_width:.2f}"


def interval_of(values: Sequence[float]) -> Interval:
    """Return the mean of ``values``, one a seed, with its interval.

    Raises:
        ValueError: no values, or scipy is not installed.
    """
    if not values:
        raise ValueError("values: none; expected at least one seed's")
    if len(values) == 1:
        return Interval(values[0], math.nan, 1)
    try:
        from scipy.stats import t as student_t
    except ImportError as error:
        raise ValueError(f"a confidence interval needs pip install 'scipy>=1.11' ({error})") from error
    quantile = float(student_t.ppf(0.975, len(values) - 1))
    return Interval(mean(values), quantile * stdev(values) / math.sqrt(len(values)), len(values))


def error_on_test(student: ClassifierStudent) -> float:
    """Return the percentage of wrong test images."""
    return 100 * (1 - student.accuracy(student.splits.test))


def evaluate(path: str, data_dir: str | None = None) -> dict[str, Any]:
    """Return what a checkpoint scores on the test images it was not trained on.

    Args:
        path: of the checkpoint.
        data_dir: where the images are now; None: where they were.

    Raises:
        CheckpointError, DataError: names the file; also where the images are not those it was trained beside, some of
            which may be test images now.
    """
    checkpoint = load_checkpoint(path)
    training = checkpoint.training
    data, splits = _images_of(checkpoint, data_dir)
    if training.images_sha256 != splits.sha256:
        where = data.data if data.data_dir is None else f"--data-dir {data.data_dir}"
        raise CheckpointError(
            f"{path}: {where} holds other images or labels than it was trained on: then "
            f"{training.protocol} ({training.images_sha256[:12]}), now {splits.protocol} ({splits.sha256[:12]})"
        )
    criterion = build_criterion("large-margin") if training.options.loss == "large-margin" else None
    try:
        student = ClassifierStudent(splits, checkpoint.recipe, criterion=criterion)
    except ValueError as error:
        raise CheckpointError(f"{path}: recipe: {one_line(error, LONGEST_REASON)}") from error
    checkpoint.load_into(student)
    return {
        "checkpoint": str(path),
        "data": data.data,
        "protocol": splits.protocol,
        "student": checkpoint.recipe.student,
        "loss": training.options.loss,
        "seed": training.options.seed,
        "update": training.update,
        "dev_error": round(100 * (1 - student.accuracy(splits.dev)), 4),
        "test_error": round(error_on_test(student), 4),
        "test_images": len(splits.test.labels),
    }


def _images_of(checkpoint: Checkpoint, data_dir: str | None) -> tuple[DataOptions, Splits]:
    """Return the data options of a checkpoint, with ``data_dir`` if that is given, and their images."""
    values = {name: value for name, value in checkpoint.training.data.items() if name != "dev_holdout"}
    try:
        options = DataOptions(**(values if data_dir is None else {**values, "data_dir": data_dir}))
    except (TypeError, ValueError) as error:  # TypeError: names that are no names of Python
        raise CheckpointError(
            f"{checkpoint.path}: metadata: training.data: {one_line(error, LONGEST_REASON)}"
        ) from error
    return options, data_of(options)
