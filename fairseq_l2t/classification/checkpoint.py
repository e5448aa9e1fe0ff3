"""The file of a trained student: its parameters, and what is needed to build it and find its data again."""

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
    """What `load_checkpoint` read.

    Args:
        path: the file.
        recipe: of the student.
        omega: its parameters (n,).
        training: loss, seed, data options and validation, as they were saved.
    """

    path: Path
    recipe: Recipe
    omega: Tensor
    training: dict[str, Any]

    def load_into(self, student: ClassifierStudent) -> None:
        """Give ``student`` these parameters.

        Raises:
            CheckpointError: it has another number of them.
        """
        if self.omega.shape != student.omega.shape:
            raise CheckpointError(
                f"{self.path}: {len(self.omega)} parameters; {student.recipe.student} has {len(student.omega)} here"
            )
        student.set_omega(self.omega.to(student.omega))


def save_checkpoint(path: str | os.PathLike[str], recipe: Recipe, omega: Tensor, training: Mapping[str, Any]) -> None:
    """Write a checkpoint atomically; ``training`` is JSON-able.

    Raises:
        OSError: not written; the file of before is intact.
    """
    content = {"recipe": asdict(recipe), "training": dict(training)}
    write_container(path, _KIND, CHECKPOINT_VERSION, content, {"omega": omega})


def load_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a checkpoint; nothing is returned unless every check passes.

    Raises:
        CheckpointError: absent, cut, damaged, or no checkpoint of a classifier.
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
