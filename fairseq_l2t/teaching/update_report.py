"""The record of a teacher update: a line of ``teacher_log.jsonl``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["LifeReport", "UpdateReport", "sum_by_tenth"]


@dataclass(frozen=True)
class LifeReport:
    """One life of a teacher update: its number, its measure on dev and the norm of its hypergradient."""

    life: int
    measure: float
    hypergradient_norm: float


@dataclass(frozen=True)
class UpdateReport:
    """One teacher update; the Phi statistics are of the last coefficients the window used.

    Args:
        teacher_update: number of updates made, this one included.
        student_life: number of the life, counted from 0; of several lives, the first one that ended well. States,
            progress and Phi statistics are of this life, measures and norms of the mean over lives.
        student_update: updates of the life so far; ``progress`` is their share of a life.
        measure: measure at the end of the window, on the dev examples of the update.
        holdout_measure: None except at the end of a life, the only point where lives are comparable: with
            ``holdout_lives`` the mean over the judging lives under the teacher after the update, otherwise the measure
            of the life itself, which was under the teacher before the update.
        hypergradient_norm, adjoint_norm: norms of the results of the sweep.
        recomputed_updates: student updates computed again because the memory budget did not hold them.
        pull_by_tenth: derivative of the measure by a number added to all coefficients of targets in a tenth of the
            updates, in order; its sign shows whether higher or lower coefficients there would have helped the student.
        hypergradient_error: relative error of a hypergradient that is not exact, on the first window; None elsewhere.
        states: states of the student by feature name (`teaching.lives.Lives.take_states`), the window's end last.
        phi_off_diagonal: mean of the off-diagonal coefficients; for a smoothed Phi the last coefficient, which is then
            in no other statistic; None for a diagonal Phi.
        initial_holdout_measure: with ``holdout_lives``, in the first report alone: the held-back measure of the initial
            teacher; None elsewhere.
        teacher_rate_factor: factor of the learning rates of the next update (`teaching.backtracking`).
        lives: of each life of the update; those that ended in NaN or infinity are left out.
        hypergradient_standard_error: standard error of the mean hypergradient over lives
            (`teaching.taught_window.standard_error`); None for a single life.
    """

    teacher_update: int
    student_life: int
    student_update: int
    progress: float
    measure: float
    holdout_measure: float | None
    hypergradient_norm: float
    adjoint_norm: float
    phi_min: float
    phi_mean: float
    phi_max: float
    recomputed_updates: int
    pull_by_tenth: tuple[float, ...]
    hypergradient_error: float | None
    states: list[dict[str, float]]
    phi_off_diagonal: float | None = None
    teacher_rate_factor: float = 1.0
    lives: tuple[LifeReport, ...] = ()
    hypergradient_standard_error: float | None = None
    initial_holdout_measure: float | None = None


def sum_by_tenth(values: Sequence[float]) -> tuple[float, ...]:
    """Return the sums of the ten tenths of ``values``, in order."""
    edges = [len(values) * tenth // 10 for tenth in range(11)]
    return tuple(sum(values[begin:end]) for begin, end in zip(edges, edges[1:], strict=False))
