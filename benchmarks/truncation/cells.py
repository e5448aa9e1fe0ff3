"""Records of truncation: one student's life, unrolled at several points and swept back once from each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from benchmarks.small_students import FAMILIES, PHI, RECIPE
from fairseq_l2t.checks.differences import spread
from fairseq_l2t.core import Teacher
from fairseq_l2t.plugin import FairseqStudent
from fairseq_l2t.testing.truncation import Sweep, compare, sweep, window_lengths
from fairseq_l2t.unroll.trajectory import Trajectory, advance, unroll

__all__ = ["Life", "horizon_lengths", "measure_life"]

_RELATIVE_SPREAD = 0.1
"""Relative deviation of the teacher's coefficients from `PHI`."""


@dataclass(frozen=True)
class Life:
    """What is measured in the life of one student.

    Args:
        data: DATA_BIN.
        family, seed: of the student; a key of `FAMILIES`.
        updates: T of a full window.
        starts: first updates of the windows, counted after the cross-entropy ones, at least ``updates`` apart.
        objectives: dev measures to go back from.
        length: updates of the life.
    """

    data: Path
    family: str
    seed: int
    updates: int
    starts: Sequence[int]
    objectives: Sequence[str]
    length: int

    @property
    def arguments(self) -> list[str]:
        """Command line of the student."""
        life = ["--seed", str(self.seed), "--total-updates", str(self.length)]
        return [str(self.data), *FAMILIES[self.family], *RECIPE, *life]


def horizon_lengths(updates: int) -> list[int]:
    """Return the short windows: a quarter of ``updates`` at most; longer ones would double the cost."""
    return [length for length in window_lengths(updates) if 4 * length <= updates]


def measure_life(life: Life, after_step: Callable[[], object] = lambda: None) -> Iterator[dict]:
    """Yield a record for each start and objective; ``after_step`` is called after each update made or gone back."""
    student = FairseqStudent.from_args(life.arguments)
    teacher = Teacher.for_student(student, seed=life.seed, initial_coefficient=PHI)
    spread(teacher, life.seed, (1 - _RELATIVE_SPREAD) * PHI, (1 + _RELATIVE_SPREAD) * PHI)
    for start in sorted(life.starts):
        for _ in range(student.cross_entropy_updates + start - student.update):
            advance(student, teacher, 1)
            after_step()
        student.observe_dev(student.dev.teaching)
        trajectory = Trajectory(student, teacher)
        for _ in range(life.updates):
            trajectory.steps += unroll(student, teacher, 1).steps
            after_step()
        for objective in life.objectives:
            record = {
                "family": life.family,
                "seed": life.seed,
                "start": start,
                "objective": objective,
                "updates": life.updates,
                "parameters": len(student.omega),
            }
            yield record | _measure(student, trajectory, objective, after_step)


def _measure(student: FairseqStudent, trajectory: Trajectory, objective: str, after_step: Callable[[], object]) -> dict:
    value, gradient = _objective(student, objective)
    found = sweep(trajectory, gradient, after_step)
    windows, whole = [], found.shares.sum(dim=0)
    for length in window_lengths(len(trajectory.steps)):
        windows.append({"window": length, **compare(found, found.shares[-length:].sum(dim=0), whole)})
    return {
        "measure": value,
        "windows": windows,
        "horizons": _short_horizons(student, trajectory, objective, found, after_step),
        "adjoint_norms": [float(f"{norm:.4g}") for norm in found.adjoint_norms],
    }


def _short_horizons(
    student: FairseqStudent, trajectory: Trajectory, objective: str, full: Sweep, after_step: Callable[[], object]
) -> list[dict]:
    """Compare windows of the first W updates, each with a measure of its own, with their share in the full sweep."""
    final_omega, horizons = student.omega.clone(), []
    for length in horizon_lengths(len(trajectory.steps)):
        student.set_omega(trajectory.steps[length].omega)
        value, gradient = _objective(student, objective)
        window = Trajectory(student, trajectory.teacher, trajectory.steps[:length])
        own = sweep(window, gradient, after_step).shares.sum(dim=0)
        later = full.shares[:length].sum(dim=0)
        horizons.append({"window": length, "measure": value, **compare(full, own, later)})
    student.set_omega(final_omega)
    return horizons


def _objective(student: FairseqStudent, objective: str) -> tuple[float, Tensor]:
    """Measure all pairs that train the teacher: sampling noise of the dev measure is not part of the question."""
    return student.dev_objective(objective, pairs=student.dev.teaching)
