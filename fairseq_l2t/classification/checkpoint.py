"""The file of a trained student: its parameters, its recipe, and the options of its data."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import ConfigDict, Field
from torch import Tensor

from fairseq_l2t.classification.classifier_student import ClassifierStudent
from fairseq_l2t.classification.recipe import Recipe
from fairseq_l2t.storage.container import ContainerError, open_container, write_container
from fairseq_l2t.storage.schema import Count, FileValues, Percent, Sha256, Share, one_line, validated

__all__ = [
    "CHECKPOINT_VERSION",
    "LONGEST_REASON",
    "Checkpoint",
    "CheckpointError",
    "TrainingValues",
    "load_checkpoint",
    "save_checkpoint",
]

CHECKPOINT_VERSION = 1

_KIND = "classifier"
LONGEST_REASON = 300
"""Characters shown of the reason for which a value is refused."""


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; one line that begins with its path."""


class _LossValues(FileValues):
    """The options of a student's training that evaluation names."""

    model_config = ConfigDict(extra="allow")

    loss: str
    seed: Annotated[int, Field(ge=0)]


class TrainingValues(FileValues):
    """What a checkpoint records of the training."""

    model_config = ConfigDict(extra="allow")

    options: _LossValues
    data: dict[str, Any]
    images_sha256: Sha256
    protocol: str | None = None
    update: Count
    dev_error: Percent
    state: dict[str, Share]


class _Content(FileValues):
    recipe: dict[str, Any]
    training: TrainingValues


@dataclass(frozen=True)
class Checkpoint:
    """Content of a checkpoint.

    Args:
        path: the file.
        recipe: of the student.
        omega: its parameters (n,).
        training: loss, seed, data options and validation, as saved, checked.
    """

    path: Path
    recipe: Recipe
    omega: Tensor
    training: TrainingValues

    def load_into(self, student: ClassifierStudent) -> None:
        """Copy the parameters into ``student``.

        Raises:
            CheckpointError: the student has another number of parameters.
        """
        if self.omega.shape != student.omega.shape:
            raise CheckpointError(
                f"{self.path}: {len(self.omega)} parameters; {student.recipe.student} has {len(student.omega)} here"
            )
        student.set_omega(self.omega.to(student.omega))


def save_checkpoint(path: str | os.PathLike[str], recipe: Recipe, omega: Tensor, training: Mapping[str, Any]) -> None:
    """Write a checkpoint atomically.

    Args:
        path: the file.
        recipe: of the student.
        omega: its parameters (n,).
        training: values of `TrainingValues`, and anything else that JSON can hold.

    Raises:
        OSError: the file cannot be written; a file that was there before is intact.
    """
    content = {"recipe": asdict(recipe), "training": dict(training)}
    write_container(path, _KIND, CHECKPOINT_VERSION, content, {"omega": omega})


def load_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Return the content of a checkpoint after all checks.

    Raises:
        CheckpointError: an absent, truncated or damaged file, or one that is not a checkpoint of a classifier.
    """
    try:
        with open_container(path, _KIND, CHECKPOINT_VERSION) as container:
            tensors, problems = container.read()
            if problems:
                raise CheckpointError(f"{container.path}: {'; '.join(problems)}")
            content = container.content
    except ContainerError as error:
        raise CheckpointError(str(error)) from error
    try:
        values = validated(_Content, content)
        recipe = Recipe(**values.recipe)
    except (TypeError, ValueError) as error:  # TypeError: names that are no names of Python
        raise CheckpointError(f"{path}: metadata: {one_line(error, LONGEST_REASON)}") from error
    omega = tensors.get("omega")
    if omega is None or len(tensors) != 1 or omega.dim() != 1 or not omega.is_floating_point():
        found = ", ".join(f"{name} {list(tensor.shape)} of {tensor.dtype}" for name, tensor in tensors.items())
        raise CheckpointError(f"{path}: tensors {found or 'none'}; expected one vector of numbers, omega")
    if not bool(torch.isfinite(omega).all()):
        raise CheckpointError(f"{path}: omega holds NaN or infinity; expected finite numbers")
    return Checkpoint(Path(path), recipe, omega, values.training)
