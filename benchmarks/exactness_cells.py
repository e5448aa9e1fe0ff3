"""One cell of the exactness table: a student of one family, under one optimizer and one setting, checked three ways."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from unittest import mock

import torch
from fairseq.models.fconv import FConvModel

from fairseq_l2t.checks.differences import Comparison, compare_hypergradient, unit_direction
from fairseq_l2t.core import Trajectory, hypergradient, student_gradient, unroll
from fairseq_l2t.plugin import FairseqStudent
from fairseq_l2t.testing.differentiable_rules import relative_error
from fairseq_l2t.testing.plain_autograd import plain_hypergradient
from fairseq_l2t.testing.tiny_students import BATCHES, FAMILIES, LIFE, OPTIMIZERS, spread_teacher

__all__ = ["BOUND", "BOUND_FLOAT32", "COVERING", "ROWS", "Cell", "Measured", "all_cells", "check_names", "measure"]

STEPS = 3
STANDSTILL = 1e-3
BOUND, BOUND_FLOAT32 = 1e-7, 1e-3
RESOLVED = BOUND / 2
"""Largest relative error the differences may have themselves, by their own estimate, for a direction to count."""

DIRECTIONS, DIRECTIONS_AT_MOST = 1, 4
"""Random directions a tensor of the teacher that must be resolved, and that are tried."""

CLIPPING = {"clipped": 0.2, "not clipped": 1000.0}
"""``--clip-norm``. Both take the norm; under the second it is never reached."""

_LARGER_START = {"lstm": 4.0}
"""Factor on the first weights, by the beginning of a family's name: fairseq's LSTMs start so small that at width 16 the
teacher hardly moves the measure, and differences drown in its rounding."""

SCHEDULES = {
    "inverse_sqrt": ("--lr-scheduler", "inverse_sqrt", "--warmup-updates", "2", "--warmup-init-lr", "0.001"),
    "cosine": ("--lr-scheduler", "cosine", "--warmup-updates", "0", "--lr-period-updates", "5", "--t-mult", "1"),
    "triangular": ("--lr-scheduler", "triangular", "--lr-period-updates", "4"),
}
COVERING = (
    ("clipped", 2, "inverse_sqrt"),
    ("not clipped", 2, "cosine"),
    ("clipped", 1, "triangular"),
)
"""Settings that hold every value of clipping, ``--update-freq`` and schedule."""


_UNSCALED = "fconv_unscaled"
ROWS = (*FAMILIES, _UNSCALED)
"""Families of the table; the last is fconv without the scaling of the gradient into its encoder."""


@dataclass(frozen=True)
class Cell:
    """What is checked: a row, an optimizer of `fairseq_l2t.testing.tiny_students`, and a setting."""

    family: str
    optimizer: str
    clipping: str
    update_freq: int
    schedule: str

    def arguments(self, data: Path) -> list[str]:
        """Return the options of the student, data folder first."""
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
    """What was found.

    Args:
        cell: what was checked.
        differences: largest relative error against float64 differences, over the directions that were resolved.
        resolution: largest relative error of those differences, by their own estimate.
        unresolved: directions that were tried and not resolved.
        autograd: relative error against plain autograd through the unroll, in float64.
        float32: relative error of the hypergradient in float32, against float64 along the same path of the student.
        drift: the same against float64 from the same start, whose student takes another path after some roundings.
        moved: length of the path of omega, relative to its start: an unroll that stands still would prove nothing.
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
        return is_exact and self.moved > STANDSTILL

    def as_json(self) -> dict:
        """Return a flat dictionary of plain values."""
        values = asdict(self)
        return {**values.pop("cell"), **values, "good": self.is_good}


def all_cells(families, optimizers, *, full: bool) -> list[Cell]:
    """Return the cells of the table: every combination of settings, or those of `COVERING`."""
    settings = list(product(CLIPPING, (1, 2), SCHEDULES)) if full else COVERING
    return [Cell(*row, *setting) for row in product(families, optimizers) for setting in settings]


def measure(data: Path, cell: Cell) -> Measured:
    """Measure one cell on the tiny corpus ``data``.

    Raises:
        ValueError: clipping is not what the cell says, or too few directions could be resolved.
    """
    with _unscaled_fconv() if cell.family == _UNSCALED else nullcontext():
        return _measure(data, cell)


def _unscaled_fconv() -> AbstractContextManager:
    """Scale by 1: fairseq scales by 1 / (2 x attention layers), and has no option for it."""
    real = FConvModel.build_model.__func__

    def build_model(cls, args, task):
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
    compared, unresolved = _compare(trajectory, ours, (cell.clipping, cell.update_freq, cell.schedule))
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
    trajectory: Trajectory, ours: dict[str, torch.Tensor], setting: tuple[str, int, str]
) -> tuple[list[Comparison], int]:
    def likelihood() -> float:
        return trajectory.student.dev_objective("likelihood")[0]

    compared, unresolved = [], 0
    for name, part in ours.items():
        resolved = []
        for seed in range(DIRECTIONS_AT_MOST):
            # Another direction in each setting: a row of the table sees many.
            direction = unit_direction(part, 100 * COVERING.index(setting) + seed if setting in COVERING else seed)
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
    """Return the error of float32 against float64 along its own path, and against ``float64``, from the same start."""
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


def check_names(families, optimizers) -> None:
    """Raise ValueError for a name that is no row, or no optimizer."""
    for option, given, known in (("--families", families, ROWS), ("--optimizers", optimizers, OPTIMIZERS)):
        unknown = [name for name in given if name not in known]
        if unknown:
            raise ValueError(f"{option}: {', '.join(unknown)}; expected names from {', '.join(known)}")
