"""How a classifier is trained, whatever its loss: network, batches, optimizer and learning rates."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fairseq_l2t.unroll.update_rules import NAG, SGD, Adam, StepSize, UpdateRule

__all__ = ["LR_SCHEDULERS", "OPTIMIZERS", "Recipe"]

OPTIMIZERS = ("sgd", "nag", "adam")
LR_SCHEDULERS = ("fixed", "cosine", "step")

_STEPS, _STEP_FACTOR = (0.5, 0.75), 0.1
"""He et al. 2016: a tenth of the learning rate after half and three quarters of all updates, on CIFAR."""


@dataclass(frozen=True)
class Recipe:
    """The numbers of a student's life; what fairseq names keeps fairseq's name.

    Args:
        student: name of the network (`classification.students.build_student`).
        total_updates: updates of a life.
        batch_size: images of an update; the last, smaller batch of an epoch is left out.
        optimizer: one of `OPTIMIZERS`. ``sgd`` has momentum and coupled weight decay.
        lr: learning rate at the start.
        lr_scheduler: one of `LR_SCHEDULERS`: the same for all updates; half a cosine down to 0; a tenth after half
            and after three quarters of the updates.
        momentum: of ``sgd`` and ``nag``.
        weight_decay: on weights, scales and shifts; never on running statistics.
        augment: pad by 4, crop at random, flip half of the images.
        cross_entropy_updates: updates of plain cross-entropy at the start of a taught life.

    Raises:
        ValueError: names the option, its value and its range.
    """

    student: str
    total_updates: int
    batch_size: int = 64
    optimizer: str = "sgd"
    lr: float = 0.1
    lr_scheduler: str = "fixed"
    momentum: float = 0.9
    weight_decay: float = 0.0
    augment: bool = False
    cross_entropy_updates: int = 0

    def __post_init__(self) -> None:
        for option, value, allowed in (
            ("--optimizer", self.optimizer, OPTIMIZERS),
            ("--lr-scheduler", self.lr_scheduler, LR_SCHEDULERS),
        ):
            if value not in allowed:
                raise ValueError(f"{option}: {value}; expected one of {', '.join(allowed)}")
        for option, value, least in (
            ("--total-updates", self.total_updates, 1),
            ("--batch-size", self.batch_size, 2),
            ("--cross-entropy-updates", self.cross_entropy_updates, 0),
        ):
            if value < least:
                raise ValueError(f"{option}: {value}; expected a whole number of at least {least}")
        if not (self.lr > 0 and math.isfinite(self.lr)):
            raise ValueError(f"--lr: {self.lr}; expected a finite number above 0")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"--momentum: {self.momentum}; expected a number in [0, 1)")
        if not (self.weight_decay >= 0 and math.isfinite(self.weight_decay)):
            raise ValueError(f"--weight-decay: {self.weight_decay}; expected a finite number of at least 0")

    def rule(self) -> UpdateRule:
        """Return the update rule of the weights."""
        if self.optimizer == "adam":
            return Adam(weight_decay=self.weight_decay)
        rule = NAG if self.optimizer == "nag" else SGD
        return rule(momentum=self.momentum, weight_decay=self.weight_decay)

    def step_size(self, update: int) -> StepSize:
        """Return the learning rate of update number ``update``, counted from 0, and of the one before."""
        return StepSize(self._lr(update), self._lr(max(update - 1, 0)), update + 1)

    def _lr(self, update: int) -> float:
        progress = update / self.total_updates
        if self.lr_scheduler == "cosine":
            return self.lr * (1 + math.cos(math.pi * progress)) / 2
        if self.lr_scheduler == "step":
            return self.lr * _STEP_FACTOR ** sum(progress >= step for step in _STEPS)
        return self.lr
