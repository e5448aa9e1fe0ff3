"""The recipe of a classifier, independent of its loss: network, batches, optimizer and learning rates."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from fairseq_l2t.teaching.options.declaration import Option, one_line_errors
from fairseq_l2t.teaching.options.limits import LARGEST_COUNT, LARGEST_RATE
from fairseq_l2t.unroll.update_rules import NAG, SGD, Adam, StepSize, UpdateRule

__all__ = ["Recipe", "RecipeOptions"]

_STEP_PROGRESS, _STEP_FACTOR = (0.5, 0.75), 0.1
"""He et al. 2016: a tenth of the learning rate after half and three quarters of all updates, on CIFAR."""


_RECIPE = "recipe of a student"


@one_line_errors
@dataclass(frozen=True, kw_only=True)
class RecipeOptions:
    """The options of how a student is trained; an option that fairseq has keeps fairseq's name."""

    student: Annotated[
        str,
        Option(
            "network: mlp, mlp-H1-H2.., lenet, resnet-D, wide-resnet-D-W or densenet-bc-D-G",
            _RECIPE,
            "NAME",
            expected="the name of a network",
        ),
    ] = "mlp"
    batch_size: Annotated[
        int,
        Field(ge=2, le=LARGEST_COUNT),
        Option("images of an update; the last, smaller batch of an epoch is left out", _RECIPE, "N"),
    ] = 64
    optimizer: Annotated[
        Literal["sgd", "nag", "adam"],
        Option("optimizer; sgd has momentum and coupled weight decay", _RECIPE),
    ] = "sgd"
    lr: Annotated[float, Field(gt=0, le=LARGEST_RATE), Option("learning rate at the start", _RECIPE, "LR")] = 0.1
    lr_scheduler: Annotated[
        Literal["fixed", "cosine", "step"],
        Option(
            "learning rates: the same for all updates, half a cosine down to 0, or a tenth after half and after three "
            "quarters of the updates",
            _RECIPE,
        ),
    ] = "fixed"
    momentum: Annotated[float, Field(ge=0, lt=1), Option("momentum of sgd and nag", _RECIPE, "M")] = 0.9
    weight_decay: Annotated[
        float,
        Field(ge=0, le=LARGEST_RATE),
        Option("weight decay on weights, scales and shifts; never on running statistics", _RECIPE, "W"),
    ] = 0.0
    augment: Annotated[bool, Option("pad images by 4 pixels and crop them at random, flip half of them", _RECIPE)] = (
        False
    )


@one_line_errors
@dataclass(frozen=True, kw_only=True)
class Recipe(RecipeOptions):
    """The numbers of a student's life.

    Args:
        total_updates: updates of a life.
        cross_entropy_updates: updates of plain cross-entropy at the start of a taught life.

    Raises:
        OptionError: names the option, its value and its range.
    """

    total_updates: Annotated[int, Field(ge=1)]
    cross_entropy_updates: Annotated[int, Field(ge=0)] = 0

    def rule(self) -> UpdateRule:
        """Return the update rule of the weights."""
        if self.optimizer == "adam":
            return Adam(weight_decay=self.weight_decay)
        rule: type[NAG] | type[SGD] = NAG if self.optimizer == "nag" else SGD
        return rule(momentum=self.momentum, weight_decay=self.weight_decay)

    def step_size(self, update: int) -> StepSize:
        """Return the learning rate of update number ``update``, counted from 0, and of the one before."""
        return StepSize(self._lr(update), self._lr(max(update - 1, 0)), update + 1)

    def _lr(self, update: int) -> float:
        progress = update / self.total_updates
        if self.lr_scheduler == "cosine":
            return self.lr * (1 + math.cos(math.pi * progress)) / 2
        if self.lr_scheduler == "step":
            return self.lr * float(_STEP_FACTOR ** sum(progress >= step for step in _STEP_PROGRESS))
        return self.lr
