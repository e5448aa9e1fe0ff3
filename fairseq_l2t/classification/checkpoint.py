"""The file of a trained student: its parameters, its recipe, and the options of its data."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fairseq_l2t.classification.classifier_student import ClassifierStudent
from fairseq_l2t.classification.recipe import Recipe
from fairseq_l2t.storage.container import ContainerError, open_container, write_container

__all__ = ["CHECKPOINT_VERSION", "Checkpoint", "CheckpointError", "load_checkpoint", "save_checkpoint"]

CHECKPOINT_VERSION = 1

_KIND = "classifier"


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; one line that begins with its path."""


@dataclass(frozen=True)
class Checkpoint:
    """Content of a checkpoint.

    Args:
        path: the file.
        recipe: of the student.
        omega: its parameters (n,).
        training: loss, seed, data options and validation, as saved.
    """

    path: Path
    recipe: Recipe
    omega: Tensor
    training: dict[str, Any]

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
        training: anything JSON can hold.

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
        omega, recipe, training = tensors["omega"], Recipe(**content["recipe"]), dict(content["training"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: metadata: {error}") from error
    if omega.dim() != 1 or not bool(torch.isfinite(omega).all()):
        raise CheckpointError(f"{path}: omega of shape {tuple(omega.shape)}; expected one vector of finite numbers")
    return Checkpoint(Path(path), recipe, omega, training)
