"""Checks of the saved state of a teacher training: types, ranges, shapes, and values that contradict each other.

They need neither student nor data, so that a state that cannot be resumed is known before anything is built, and the
previous one is taken. What depends on the student (`teaching.trainer`) is compared when the state is loaded.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

from pydantic import ConfigDict, Field
from torch import Tensor

from fairseq_l2t.storage.run_state import StateCheck
from fairseq_l2t.storage.schema import Count, FileValues, Finite, Sha256, Share, validated
from fairseq_l2t.teaching.plan import JUDGING_SEED_OFFSET
from fairseq_l2t.teaching.saved_tensors import PlanShape, tensor_problems

__all__ = ["StudentValues", "check_of"]


class StudentValues(FileValues):
    """The values of a student's life that every kind of student saves."""

    seed: Annotated[int, Field(ge=0, lt=2**64)]
    update: Count
    measures: dict[str, Share]


class _PlanValues(FileValues):
    """The numbers of the plan that other values depend on."""

    model_config = ConfigDict(extra="ignore")

    seed: Annotated[int, Field(ge=0)]
    total_updates: Annotated[int, Field(ge=1)]
    unroll_length: Annotated[int, Field(ge=1)]
    cross_entropy_updates: Count
    teacher_keys: Annotated[int, Field(ge=1)]
    lives_per_update: Annotated[int, Field(ge=1)] = 1
    holdout_lives: Count = 0
    teacher_lr_shrink: Annotated[float, Field(gt=0, le=1)] = 1.0


class _RunValues(FileValues):
    """The values of a run (`teaching.trainer.TeacherTrainer.state_dict`, `teaching.record`)."""

    plan: dict[str, Any]
    options: dict[str, Any]
    rate_factor: Annotated[float, Field(gt=0, le=1)]
    teacher_update: Count
    life: Annotated[int, Field(ge=-1, lt=2**31)]
    best_holdout: Finite | None
    best_update: Count | None
    bad_windows: Count
    life_is_spoilt: bool
    student: dict[str, Any] | None  # None of several lives an update: the next update begins new ones
    states: list[dict[str, Share]]
    states_end: Count
    fingerprints: dict[str, Sha256] | None = None


def check_of(student_values: type[StudentValues]) -> StateCheck:
    """Return the check of a saved teacher training whose students save ``student_values``."""

    def check(tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        run = validated(_RunValues, values)
        plan = validated(_PlanValues, run.plan, "plan")
        student = None if run.student is None else validated(student_values, run.student, "student")
        if (student is None) != (plan.lives_per_update > 1):
            raise ValueError(f"student: expected one, or none with --lives-per-update {plan.lives_per_update}")
        measures = [*student.measures] if student else [name for name in (run.states or [{}])[0] if name != "progress"]
        shape = PlanShape(
            keys=plan.teacher_keys,
            features=len(measures) + 1,
            teacher_update=run.teacher_update,
            has_gone_back=run.rate_factor < 1,
            has_best=plan.teacher_lr_shrink < 1 and run.best_update is not None,
            student_is_spoilt=run.life_is_spoilt,
            has_student=student is not None,
        )
        for problem in (*_contradictions(run, plan, student, measures), *tensor_problems(tensors, shape)):
            raise ValueError(problem)

    return check


def _contradictions(
    run: _RunValues, plan: _PlanValues, student: StudentValues | None, measures: Sequence[str]
) -> Iterator[str]:
    if not _is_power(run.rate_factor, plan.teacher_lr_shrink):
        yield f"rate_factor: {run.rate_factor}; expected a power of --teacher-lr-shrink {plan.teacher_lr_shrink}"
    windows = max(1, -(-(plan.total_updates - plan.cross_entropy_updates) // plan.unroll_length))
    if (run.life < 0) != (run.teacher_update == 0):
        yield f"life: {run.life}; expected -1 before the first teacher update and at least 0 after it"
    if run.teacher_update * plan.lives_per_update > (run.life + 1) * windows:
        yield f"teacher_update: {run.teacher_update}; expected at most {windows} in each of {run.life + 1} lives"
    for name, update in (("student.update", student.update if student else 0), ("states_end", run.states_end)):
        if update > plan.total_updates:
            yield f"{name}: {update}; expected at most the {plan.total_updates} updates of a life"
    if (run.best_update is None) != (run.best_holdout is None):
        yield f"best_update: {run.best_update}; best_holdout is {run.best_holdout}"
    if (run.best_update or 0) > run.teacher_update:
        yield f"best_update: {run.best_update}; expected at most the {run.teacher_update} teacher updates made"
    if not run.states and run.teacher_update:
        yield "states: none; expected those of the newest life"
    expected = {"progress", *measures}
    yield from (
        f"states: {', '.join(state)}; expected {', '.join(expected)}" for state in run.states if set(state) != expected
    )
    if run.teacher_update and student is not None:
        yield from _contradictions_in_life(run, plan, student)


def _is_power(factor: float, base: float) -> bool:
    if base == 1:
        return factor == 1
    return math.isclose(factor, base ** round(math.log(factor) / math.log(base)), rel_tol=1e-6)


def _contradictions_in_life(run: _RunValues, plan: _PlanValues, student: StudentValues) -> Iterator[str]:
    first = plan.seed + JUDGING_SEED_OFFSET
    if run.life_is_spoilt:  # the last student was not taught: it judged the teacher
        seeds = range(first, first + plan.holdout_lives)
    else:
        seeds = range(plan.seed + run.life, plan.seed + run.life + 1)
    if student.seed not in seeds:
        expected = f"{seeds.start} to {seeds.stop - 1}" if len(seeds) else "no judging life (--holdout-lives 0)"
        yield f"student.seed: {student.seed}; expected {expected}"
    if not run.life_is_spoilt and student.update != run.states_end:
        yield f"states_end: {run.states_end}; expected the {student.update} updates of the student"
    if run.states_end < 1:
        yield f"states_end: {run.states_end}; expected at least 1 after a window"
