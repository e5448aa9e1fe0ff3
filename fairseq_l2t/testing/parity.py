"""Parity: the same updates by fairseq's Trainer and by our unroll, and the largest difference of a parameter.

Tests and ``benchmarks/parity`` measure the same cells.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import torch
from fairseq.data import data_utils
from fairseq.logging import metrics
from torch import Tensor

from fairseq_l2t.loss.teacher import Teacher
from fairseq_l2t.plugin import FairseqStudent
from fairseq_l2t.plugin.task import vocabulary_of
from fairseq_l2t.storage import TeacherSettings, save_teacher
from fairseq_l2t.testing.fairseq_reference import FairseqRun, run_fairseq
from fairseq_l2t.testing.tiny_students import FAMILIES, OPTIMIZERS, RECIPE, make_student, spread_teacher
from fairseq_l2t.unroll.trajectory import Step, unroll

__all__ = [
    "BOUND",
    "LOSSES",
    "MOVED",
    "QUICK_CELLS",
    "Cell",
    "Measured",
    "all_cells",
    "by_fairseq",
    "largest_difference",
    "measure",
    "write_teacher",
]

BOUND = 1e-5
"""Largest difference of a parameter, relative to the norm of its tensor, at the end of the updates."""

MOVED = 1e-2
"""Smallest distance, in the same measure, a parameter must have come: updates that do nothing prove nothing."""

LOSSES = ("cross_entropy", "dynamic")

SIZES = ("--batch-size", "16", "--batch-size-valid", "60", "--required-batch-size-multiple", "1")
"""An epoch of the tiny corpus is 25 batches, 13 updates, the last of one batch; the dev pairs are one batch."""

_CLIP_NORM = {"lstm": 0.02}
"""``--clip-norm`` of families whose gradients never reach that of `RECIPE`, by prefix of the family."""


@dataclass(frozen=True)
class Cell:
    """A student to check: a family and an optimizer of `tiny_students`, a loss of `LOSSES`, a number of updates."""

    family: str
    optimizer: str
    loss: str
    updates: int = 20

    @property
    def validated_after(self) -> int:
        """The update after which the teacher's dev measures are taken; 0 under cross-entropy, which needs none."""
        return self.updates // 3 if self.loss == "dynamic" else 0

    @property
    def options(self) -> list[str]:
        """Options that our student and fairseq's Trainer share, beside family, optimizer and `RECIPE`."""
        clip = [value for beginning, value in _CLIP_NORM.items() if self.family.startswith(beginning)]
        taught_from = 1 if self.loss == "dynamic" else self.updates
        life = ["--total-updates", str(self.updates + 1), "--cross-entropy-updates", str(taught_from)]
        return [*SIZES, *(["--clip-norm", str(clip[0])] if clip else []), *life]

    def student(self, data: Path) -> FairseqStudent:
        """Return the student of our unroll, at the beginning of its life, in float32."""
        return make_student(data, self.family, self.optimizer, *self.options)

    def fairseq_arguments(self, data: Path, folder: Path) -> list[str]:
        """Return the command line for fairseq's Trainer; the teacher of `write_teacher` is in ``folder``."""
        loss = {
            "cross_entropy": ["--criterion", "cross_entropy"],
            "dynamic": ["--task", "l2t_dlf", "--criterion", "dynamic_teacher_loss", "--teacher-path", _file(folder)],
        }[self.loss]
        options = self.options if self.loss == "dynamic" else self.options[:-4]  # fairseq's own task knows no life
        return [
            *(str(data), *FAMILIES[self.family], *OPTIMIZERS[self.optimizer], *RECIPE, *options, *loss),
            *("--save-dir", str(folder / "save"), "--no-progress-bar", "--num-workers", "0"),
        ]

    def unroll(self, student: FairseqStudent, teacher: Teacher) -> list[Step]:
        """Make the updates, with a validation where fairseq has one, and return every step."""
        if not self.validated_after:
            return unroll(student, teacher, self.updates).steps
        steps = unroll(student, teacher, self.validated_after).steps
        with data_utils.numpy_seed(student.seed):
            # fairseq's order, which the last digits of a sum depend on.
            student.observe_dev(student.task.dataset("valid").ordered_indices())
        return [*steps, *unroll(student, teacher, self.updates - self.validated_after).steps]


@dataclass(frozen=True)
class Measured:
    """Results of one cell.

    Args:
        cell: the student.
        difference: largest difference of a parameter at the end, relative to the norm of its tensor.
        is_equal: whether every bit of every parameter is the same.
        moved: largest distance of a parameter from its start, in the same measure.
        clipped: share of the updates whose gradient fairseq clipped.
        epochs: number of epochs the updates took.
    """

    cell: Cell
    difference: float
    is_equal: bool
    moved: float
    clipped: float
    epochs: int

    @property
    def is_good(self) -> bool:
        """Whether the students are the same, and the run moved, clipped, and crossed the end of an epoch."""
        return self.difference < BOUND and self.moved > MOVED and self.clipped > 0 and self.epochs > 1

    def as_json(self) -> dict[str, Any]:
        """Return a flat dictionary of plain values."""
        values = asdict(self)
        return {**values.pop("cell"), **values, "good": self.is_good}


QUICK_CELLS = (
    Cell("lstm_frozen_embeddings", "momentum", "cross_entropy"),
    Cell("lstm_bidirectional_left", "nag", "cross_entropy"),
    Cell("dynamicconv_tied_left", "sgd", "cross_entropy"),
    Cell("transformer_learned_positions", "adam", "cross_entropy"),
    Cell("transformer_pre_norm", "adamw", "dynamic"),
    Cell("lstm_wiseman", "adagrad", "dynamic"),
    Cell("fconv_iwslt", "adam", "dynamic"),
    Cell("fconv_tied_left", "momentum", "dynamic"),
)
"""A sample of the table for tests: every optimizer and both losses occur."""


def all_cells(families: Iterable[str], optimizers: Iterable[str], updates: int) -> list[Cell]:
    """Return the cells of the tables, one loss after the other."""
    rows = product(LOSSES, families, optimizers)
    return [Cell(family, optimizer, loss, updates) for loss, family, optimizer in rows]


def measure(data: Path, cell: Cell, folder: Path) -> Measured:
    """Measure one cell in float32 on the tiny corpus ``data``; files go to ``folder``.

    Raises:
        ValueError: the two students differ before the first update.
    """
    student = cell.student(data)
    teacher = spread_teacher(student)
    write_teacher(student, teacher, folder)
    run, clipped = by_fairseq(data, cell, folder)
    if largest_difference(student, run.start) != 0:
        raise ValueError(f"{cell}: the students differ before the first update")
    moved = largest_difference(student, run.end)
    cell.unroll(student, teacher)
    difference = largest_difference(student, run.end)
    return Measured(cell, difference, difference == 0, moved, clipped, run.epochs)


def by_fairseq(data: Path, cell: Cell, folder: Path, *, double: bool = False) -> tuple[FairseqRun, float]:
    """Make the updates of ``cell`` with fairseq's Trainer; return its run, and the share of updates it clipped."""
    arguments = cell.fairseq_arguments(data, folder)
    with metrics.aggregate(new_root=True) as log:
        run = run_fairseq(arguments, cell.updates, double=double, validate_after=cell.validated_after)
    # fairseq logs 100 for an update it clipped and 0 for another.
    return run, float(log["clip"].avg) / 100


def largest_difference(student: FairseqStudent, parameters: dict[str, Tensor]) -> float:
    """Return the largest difference of a parameter, relative to the norm of the tensor it belongs to."""
    parts = student.parameters.split(student.omega)
    differences = [
        (part - parameters[name]).abs().max() / parameters[name].norm().clamp_min(1e-3)
        for name, part in zip(student.parameters.names, parts, strict=True)
    ]
    return float(torch.stack(differences).max())  # torch's max returns NaN if one is NaN, Python's need not


def write_teacher(student: FairseqStudent, teacher: Teacher, folder: Path) -> None:
    """Write a teacher file for the life of ``student`` into ``folder``, where `Cell.fairseq_arguments` names it."""
    shape = student.options.loss_shape
    settings = TeacherSettings(
        shape.scale, shape.cross_entropy_mix, student.options.total_updates, student.cross_entropy_updates
    )
    save_teacher(Path(_file(folder)), teacher, vocabulary_of(student.task.target_dictionary), settings)


def _file(folder: Path) -> str:
    return str(folder / "teacher.safetensors")
