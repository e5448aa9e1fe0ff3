"""One cell of the table of peers: the verdict on one peer for a family and an optimizer.

A hypergradient is compared with float64 differences of *the peer's own* forward computation. Separately, the measure of
the peer's student is compared with that of real updates in place by a real optimizer.
"""

from __future__ import annotations

import copy
import logging
import math
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.peers.task import PeerTask, make_task, trained_values
from benchmarks.peers.unrolls import UNROLLS
from fairseq_l2t.checks.differences import Comparison, Slope, compare_hypergradient, slope_at_zero, unit_direction
from fairseq_l2t.core import Teacher, hypergradient
from fairseq_l2t.kernels.twice_differentiable import outer_gradient
from fairseq_l2t.plugin.student.second_derivatives import fairseq_twice_differentiable

__all__ = ["Cell", "measure_cell", "quiet"]

TOLERANCE = 1e-6
"""Relative error up to which a hypergradient counts as right; the differences must resolve as much."""

STUDENT_TOLERANCE = 1e-4
"""The same for the student: TorchOpt's Adam corrects its bias in float32, which changes the measure by up to 1e-5."""

_DIRECTIONS = 2
_STEP_SIZES = (3e-4, 1e-5, 3e-7, 1e-8)
"""First distances of the differences; the next is tried where the one before does not settle the question. Adam's
updates bend within 1e-6 where gradients are as small as its eps: there, larger distances agree by chance."""

_LEAST_RESOLVED_RATIO = 3
"""Smallest ratio of an error to the resolution of the differences for a peer to be called wrong."""

_LARGEST_RELATIVE_CHANGE = 0.1
"""Share of the gap to a peer's derivative by which two slopes may differ for the peer to be called wrong."""


@dataclass
class Cell:
    """Results of one cell.

    Args:
        family, optimizer, peer: names of what is measured.
        mended: with our corrections of fairseq's modules around the peer.
        verdict: ``right``, ``WRONG ...``, ``NaN``, ``unresolved``, ``raises: ...`` or ``not installed``.
        error: relative error of the hypergradient along random directions, on the worst tensor of the teacher.
        resolution: relative error the differences may have themselves.
        student_error: how far the measure of the peer's student is from that of the real one, relative to how far
            training moved it.
        real_optimizer: the real optimizer whose student is nearest, ``torch`` or ``fairseq``.
        message: error of the peer, or the command that installs it.
        versions: of the libraries.
    """

    family: str
    optimizer: str
    peer: str
    mended: bool
    verdict: str = ""
    error: float | None = None
    resolution: float | None = None
    student_error: float | None = None
    real_optimizer: str | None = None
    message: str = ""
    versions: dict[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict:
        """Return plain values for JSON."""
        return asdict(self)


def measure_cell(data: Path, family: str, optimizer: str, peer: str, *, steps: int = 3, mended: bool = False) -> Cell:
    """Return the cell of ``peer``, a key of `UNROLLS` or ``ours``; an error of the peer is not caught.

    ``mended``: with our corrections of fairseq's and PyTorch's modules around the peer.
    """
    cell = Cell(family, optimizer, peer, mended)
    with torch.random.fork_rng([]):
        task = make_task(data, family, optimizer, steps=steps, mended=mended)
        comparisons, value = _ours(task) if peer == "ours" else _peer(task, UNROLLS[peer])
        values = trained_values(task)
    cell.error = max(_relative_error(found) for found in comparisons)
    cell.resolution = max(max(one.resolution for one in found) for found in comparisons)
    start = values.pop("start")
    errors = {name: abs(value - real) / abs(real - start) for name, real in values.items()}
    cell.real_optimizer = min(errors, key=errors.get)
    cell.student_error = errors[cell.real_optimizer]
    cell.verdict = _verdict(cell)
    return cell


def quiet() -> None:
    """Use one thread and silence the log and warnings of this process, which would break the progress bar."""
    torch.set_num_threads(1)
    logging.getLogger("fairseq").setLevel(logging.WARNING)
    warnings.simplefilter("ignore")


def _verdict(cell: Cell) -> str:
    if not cell.student_error < STUDENT_TOLERANCE:
        hypergradient_too = "" if cell.error < TOLERANCE else f"; hypergradient {_share(cell.error)}"
        return f"WRONG student {_share(cell.student_error)}{hypergradient_too}"
    if math.isnan(cell.error):
        return "NaN"
    if cell.error < TOLERANCE:
        return "right"
    return "unresolved" if cell.error < _LEAST_RESOLVED_RATIO * cell.resolution else f"WRONG {_share(cell.error)}"


def _share(error: float) -> str:
    return "NaN" if math.isnan(error) else f"{100 * error:.2g} %" if error < 10 else f"{error:.1e} times"


def _relative_error(found: list[Comparison]) -> float:
    """Return the relative error over the directions of one tensor, taken together."""
    gap = math.sqrt(sum((one.ours - one.slope.value) ** 2 for one in found))
    size = math.sqrt(sum(one.slope.value**2 for one in found))
    return gap / size if size else (0.0 if gap == 0 else math.inf)


def _settled(derivative: float, slope_from: Callable[[float], Slope]) -> Comparison:
    """Compare with slopes from ever smaller first distances, until one agrees or two agree that it is wrong."""
    before = None
    for largest in _STEP_SIZES:
        slope = slope_from(largest)
        found = Comparison(derivative, slope)
        change = math.inf if before is None else abs(slope.value - before)
        if (
            found.error < TOLERANCE
            or math.isnan(derivative)
            or change < _LARGEST_RELATIVE_CHANGE * abs(derivative - slope.value)
        ):
            return found
        before = slope.value
    return Comparison(derivative, Slope(slope.value, max(slope.uncertainty, change)))


def _peer(task: PeerTask, unroll: Callable[[PeerTask, Teacher], Tensor]) -> tuple[list[list[Comparison]], float]:
    """Return the comparisons along each tensor of the teacher, and the measure."""
    teacher = copy.deepcopy(task.teacher)
    named = dict(teacher.named_parameters())
    with ExitStack() as mends:
        if task.mended:
            mends.enter_context(fairseq_twice_differentiable())
        measure = unroll(task, teacher)
        with outer_gradient():
            parts = torch.autograd.grad(measure, list(named.values()), allow_unused=True, materialize_grads=True)

        def moved(name: str, direction: Tensor, distance: float) -> float:
            other = copy.deepcopy(task.teacher)
            with torch.no_grad():
                dict(other.named_parameters())[name].add_(direction, alpha=distance)
            return float(unroll(task, other).detach())

        comparisons = []
        for (name, parameter), part in zip(named.items(), parts, strict=True):
            found = []
            for seed in range(_DIRECTIONS):
                direction = unit_direction(parameter.detach(), seed)

                def slope_from(largest: float, name=name, direction=direction) -> Slope:
                    return slope_at_zero(lambda h: moved(name, direction, h), largest, tolerance=TOLERANCE / 4)

                found.append(_settled(float((part * direction).sum()), slope_from))
            comparisons.append(found)
    return comparisons, float(measure.detach())


def _ours(task: PeerTask) -> tuple[list[list[Comparison]], float]:
    trajectory = task.trajectory
    value, gradient = trajectory.student.dev_objective()
    ours = hypergradient(trajectory, gradient)

    def measure() -> float:
        return trajectory.student.dev_objective()[0]

    comparisons = []
    for name, part in ours.items():
        found = []
        for seed in range(_DIRECTIONS):
            direction = unit_direction(part, seed)

            def slope_from(largest: float, name=name, direction=direction) -> Slope:
                return compare_hypergradient(
                    trajectory, ours, measure, name, direction, largest=largest, tolerance=TOLERANCE / 4
                ).slope

            found.append(_settled(float((part * direction).sum()), slope_from))
        comparisons.append(found)
    return comparisons, value
