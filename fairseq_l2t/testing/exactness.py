"""Exactness of a hypergradient, measured three ways for one student under one optimizer and one setting.

The hypergradient is compared with float64 finite differences, with plain autograd through the whole unroll, and in
float32 with float64. Tests and ``benchmarks/exactness`` measure the same cells.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from fairseq.models.fconv import FConvModel

from fairseq_l2t.checks.differences import Comparison, compare_hypergradient, unit_direction
from fairseq_l2t.plugin import FairseqStudent
from fairseq_l2t.testing.differentiable_rules import relative_error
from fairseq_l2t.testing.plain_autograd import plain_hypergradient
from fairseq_l2t.testing.tiny_students import BATCHES, FAMILIES, LIFE, OPTIMIZERS, spread_teacher
from fairseq_l2t.unroll.adjoint_sweep import hypergradient
from fairseq_l2t.unroll.gradients import student_gradient
from fairseq_l2t.unroll.trajectory import Trajectory, unroll

__all__ = [
    "BOUND",
    "BOUND_FLOAT32",
    "COVERING_SETTINGS",
    "QUICK_CELLS",
    "ROWS",
    "Cell",
    "Measured",
    "all_cells",
    "measure",
]

STEPS = 3
"""Updates of the unroll; the first uses cross-entropy."""

SMALLEST_MOVEMENT = 1e-3
"""A student whose parameters move less, relative to their norm, proves nothing."""

BOUND, BOUND_FLOAT32 = 1e-7, 1e-3
"""Largest relative errors of a cell that passes, in float64 and in float32."""

RESOLVED = BOUND / 2
"""Largest relative error, by their own estimate, of finite differences that count."""

DIRECTIONS, DIRECTIONS_AT_MOST = 1, 4
"""Number of random directions that must be resolved for each tensor of the teacher, and that are tried."""

CLIPPING = {"clipped": 0.2, "not clipped": 1000.0}
"""``--clip-norm``. Both compute the norm; no gradient reaches the second."""

_LARGER_START = {"lstm": 4.0}
"""Factor on the first weights, by prefix of the family. fairseq's LSTMs start so small that at width 16 the teacher
hardly moves the measure, and its rounding hides the differences."""

SCHEDULES = {
    "inverse_sqrt": ("--lr-scheduler", "inverse_sqrt", "--warmup-updates", "2", "--warmup-init-lr", "0.001"),
    "cosine": ("--lr-scheduler", "cosine", "--warmup-updates", "0", "--lr-period-updates", "5", "--t-mult", "1"),
    "triangular": ("--lr-scheduler", "triangular", "--lr-period-updates", "4"),
}
COVERING_SETTINGS = (
    ("clipped", 2, "inverse_sqrt"),
    ("not clipped", 2, "cosine"),
    ("clipped", 1, "triangular"),
)
"""Settings (clipping, ``--update-freq``, schedule) that together have every value of each."""

_UNSCALED = "fconv_unscaled"
ROWS = (*FAMILIES, _UNSCALED)
"""Families of the table; the last is fconv without the scaling of the gradient into its encoder."""


@dataclass(frozen=True)
class Cell:
    """A student to check: a family of `ROWS`, an optimizer of `tiny_students.OPTIMIZERS`, and a setting."""

    family: str
    optimizer: str
    clipping: str
    update_freq: int
    schedule: str

    def arguments(self, data: Path) -> list[str]:
        """Return the options of the student; the first is the data folder."""
        optimizer = [*OPTIMIZERS[self.optimizer]]
        rate = float(optimizer[optimizer.index("--lr") + 1])
        schedule = [*SCHEDULES[self.schedule]]
        if self.schedule == "triangular":
            schedule += ["--max-lr", str(rate)]
            rate /= 4
        family = FAMILIES["fconv" if self.family == _UNSCALED else self.family]
        return [
            *(str(data), *family, *optimizer, *BATCHES, *LIFE, "--dev-batch", "8", *schedule),
            *("--clip-norm", str(CLIPPING[self.clipping]), "--update-freq", str(self.update_freq), "--lr", str(rate)),
        ]


@dataclass(frozen=True)
class Measured:
    """Errors of one cell.

    Args:
        cell: the student.
        differences: largest relative error against float64 differences, over the directions that were resolved.
        resolution: largest relative error of those differences, by their own estimate.
        unresolved: number of directions that were tried and not resolved.
        autograd: relative error against plain autograd through the unroll, in float64.
        float32: relative error of the hypergradient in float32, against float64 along the same path of the student.
        drift: the same against float64 from the same start, where rounding leads the student along another path.
        moved: distance of omega from its start, relative to the norm of the start.
    """

    cell: Cell
    differences: float
    resolution: float
    unresolved: int
    autograd: float
    float32: float
    drift: float
    moved: float

    @property
    def is_good(self) -> bool:
        """Whether every error is below its bound, and the student moved."""
        is_exact = self.differences < BOUND and self.autograd < BOUND and self.float32 < BOUND_FLOAT32
        return is_exact and self.moved > SMALLEST_MOVEMENT

    def as_json(self) -> dict[str, Any]:
        """Return a flat dictionary of plain values."""
        values = asdict(self)
        return {**values.pop("cell"), **values, "good": self.is_good}


QUICK_CELLS = (
    Cell("transformer_attention_dropout", "adamw", *COVERING_SETTINGS[0]),
    Cell("transformer_pre_norm", "momentum", *COVERING_SETTINGS[1]),
    Cell("fconv_tied", "sgd", *COVERING_SETTINGS[2]),
    Cell(_UNSCALED, "sgd", *COVERING_SETTINGS[0]),
    Cell("dynamicconv", "adagrad", *COVERING_SETTINGS[0]),
    Cell("lightconv", "adam", *COVERING_SETTINGS[1]),
    Cell("lstm_luong", "nag", *COVERING_SETTINGS[2]),
    Cell("lightconv_tied_left", "sgd", *COVERING_SETTINGS[1]),
    Cell("lstm_tied_left", "adam", *COVERING_SETTINGS[0]),
    Cell("transformer_learned_positions", "nag", *COVERING_SETTINGS[2]),
    Cell("lstm_frozen_embeddings", "momentum", *COVERING_SETTINGS[1]),
)
"""A sample of the table for tests: every architecture, optimizer and setting occurs."""


def all_cells(families: Iterable[str], optimizers: Iterable[str], *, full: bool) -> list[Cell]:
    """Return the cells of the table; ``full``: every combination of settings instead of `COVERING_SETTINGS`."""
    settings = list(product(CLIPPING, (1, 2), SCHEDULES)) if full else COVERING_SETTINGS
    rows = list(product(families, optimizers))
    return [Cell(family, optimizer, *setting) for family, optimizer in rows for setting in settings]


def measure(data: Path, cell: Cell) -> Measured:
    """Measure one cell on the tiny corpus ``data``.

    Raises:
        ValueError: a gradient norm contradicts the cell's clipping, or too few directions could be resolved.
    """
    with _unscaled_fconv() if cell.family == _UNSCALED else nullcontext():
        return _measure(data, cell)


def _unscaled_fconv() -> AbstractContextManager[Any]:
    """Scale by 1; fairseq scales by 1 / (2 x attention layers) and has no option for it."""
    real = FConvModel.build_model.__func__

    def build_model(cls: type[FConvModel], args: Any, task: Any) -> FConvModel:
        model = real(cls, args, task)
        model.encoder.num_attention_layers = 0.5
        return model

    return mock.patch.object(FConvModel, "build_model", classmethod(build_model))


def _measure(data: Path, cell: Cell) -> Measured:
    student = FairseqStudent.from_args(cell.arguments(data)).double()
    trajectory = _unroll(student, cell)
    start = trajectory.steps[0].omega
    _check_clipping(trajectory, cell)
    ours = hypergradient(trajectory, student.dev_objective("likelihood")[1])
    compared, unresolved = _compare(student, trajectory, ours, (cell.clipping, cell.update_freq, cell.schedule))
    return Measured(
        cell,
        float(torch.tensor([one.error for one in compared], dtype=torch.float64).max()),  # NaN where one is
        max(one.resolution for one in compared),
        unresolved,
        relative_error(ours, plain_hypergradient(trajectory)),
        *_float32_errors(data, cell, ours),
        float((student.omega - start).norm() / start.norm()),
    )


def _unroll(student: FairseqStudent, cell: Cell) -> Trajectory:
    for beginning, factor in _LARGER_START.items():
        if cell.family.startswith(beginning):
            student.set_omega(student.omega * factor)
    return unroll(student, spread_teacher(student), STEPS)


def _compare(
    student: FairseqStudent, trajectory: Trajectory, ours: dict[str, torch.Tensor], setting: tuple[str, int, str]
) -> tuple[list[Comparison], int]:
    """Return the comparisons along the resolved directions, and the number of directions that were not resolved."""

    def likelihood() -> float:
        return student.dev_objective("likelihood")[0]

    compared: list[Comparison] = []
    unresolved = 0
    for name, part in ours.items():
        resolved: list[Comparison] = []
        for seed in range(DIRECTIONS_AT_MOST):
            # Every setting has directions of its own, so that a row of the table sees many.
            number = COVERING_SETTINGS.index(setting) if setting in COVERING_SETTINGS else 0
            direction = unit_direction(part, 100 * number + seed)
            one = compare_hypergradient(trajectory, ours, likelihood, name, direction, tolerance=RESOLVED / 2)
            if one.resolution <= RESOLVED:
                resolved.append(one)
            else:
                unresolved += 1
            if len(resolved) == DIRECTIONS:
                break
        else:
            raise ValueError(f"{name}: only {len(resolved)} of {DIRECTIONS_AT_MOST} directions could be resolved")
        compared += resolved
    return compared, unresolved


def _float32_errors(data: Path, cell: Cell, float64: dict[str, torch.Tensor]) -> tuple[float, float]:
    """Return the errors of float32: against float64 along the same path, and against ``float64``."""
    student = FairseqStudent.from_args(cell.arguments(data))
    trajectory = _unroll(student, cell)
    end = student.omega.clone()
    found = hypergradient(trajectory, student.dev_objective("likelihood")[1])
    found = {name: part.double() for name, part in found.items()}
    student.double()
    student.set_omega(end.double())
    again = Trajectory(student, spread_teacher(student), [step.to(student.omega) for step in trajectory.steps])
    same_path = hypergradient(again, student.dev_objective("likelihood")[1])
    return relative_error(found, same_path), relative_error(found, float64)


def _check_clipping(trajectory: Trajectory, cell: Cell) -> None:
    student = trajectory.student
    final = student.omega.clone()
    for step in trajectory.steps:
        student.set_omega(step.omega)
        norm = float(student_gradient(student, step.batch, step.coefficients, step.update).norm())
        if (norm > student.clipping.max_norm) != (cell.clipping == "clipped"):
            raise ValueError(f"{cell}: gradient norm {norm:g} at update {step.update}")
    student.set_omega(final)
