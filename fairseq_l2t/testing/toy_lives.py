"""Lives of a toy student that can be interrupted or fail, and a trainer of its teacher."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from torch import Tensor

from fairseq_l2t.loss.teacher import Teacher
from fairseq_l2t.teaching.options.teaching_options import TeachingOptions
from fairseq_l2t.teaching.plan import TeachingPlan, plan_of, resolve
from fairseq_l2t.teaching.processes import Processes
from fairseq_l2t.teaching.trainer import TeacherTrainer
from fairseq_l2t.teaching.update_report import UpdateReport
from fairseq_l2t.testing.hypergradient_check import dev_gradient, dev_measure
from fairseq_l2t.testing.toy_student import ToyStudent
from fairseq_l2t.unroll.student import Batch, BatchLoss

PLAN = plan_of(
    resolve(
        TeachingOptions(
            unroll_length=3,
            total_updates=8,
            teacher_updates=7,
            teacher_lr=0.05,
            teacher_word_lr=0.02,
            teacher_off_diagonal_lr=0.0,
        ),
        given=(),
    ),
    seed=5,
)
JUDGED = dataclasses.replace(PLAN, holdout_lives=2)


class MortalStudent(ToyStudent):
    """A toy student that can be interrupted, and whose updates can be made to fail.

    ``bad_lives``: seeds of the lives whose losses are NaN.
    """

    bad_lives: frozenset[int] = frozenset()

    def losses(self, batch: Batch, coefficients: Tensor | None, *, measure: bool) -> Iterator[BatchLoss]:
        """Yield the losses of the toy student, NaN in ``bad_lives``."""
        for part in super().losses(batch, coefficients, measure=measure):
            yield dataclasses.replace(part, total=part.total * math.nan) if self.seed in self.bad_lives else part

    def state_dict(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the tensors and plain values the outer loop saves."""
        tensors = {"omega": self.omega.clone(), **{f"buffer{i}": b.clone() for i, b in enumerate(self.buffers)}}
        return tensors, {"seed": self.seed, "update": self.update, "measures": self.state.state_dict()}

    def load_state_dict(self, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        """Go on with a saved life."""
        self.restart(values["seed"])
        self.set_omega(tensors["omega"])
        self.buffers = tuple(tensors[f"buffer{i}"] for i in range(len(self.buffers)))
        self.update = values["update"]
        self.state.load_state_dict(values["measures"])


def trainer(
    plan: TeachingPlan = PLAN,
    *,
    warmup: int = 0,
    bad_lives: Iterable[int] = (),
    holdouts: Iterable[float] | None = None,
    seed: int = 0,
    interval: int = 0,
    processes: Processes | None = None,
) -> TeacherTrainer:
    """Return a trainer of a toy student.

    Args:
        plan: numbers of the training.
        warmup: cross-entropy updates at the start of a life.
        bad_lives: seeds of lives that fail.
        holdouts: values that replace the measure on held-back pairs.
        seed: seed of the teacher.
        interval: student updates between two looks at dev; 0: after each window.
        processes: processes that share the lives.
    """
    student = MortalStudent(cross_entropy_updates=warmup)
    student.bad_lives = frozenset(bad_lives)
    values = None if holdouts is None else iter(holdouts)

    def measure(update: int) -> tuple[float, Tensor]:
        return float(dev_measure(student, student.omega)), dev_gradient(student)

    return TeacherTrainer(
        student,
        Teacher.for_student(student, keys=3, seed=seed),
        dataclasses.replace(plan, validate_interval_updates=interval),
        measure=measure,
        holdout=lambda: measure(0)[0] if values is None else next(values),
        observe_dev=lambda: student.state.observe_dev(1.0, 0.5),
        processes=processes,
    )


def run(subject: TeacherTrainer, updates: int, keep: Callable[[], None] = lambda: None) -> list[UpdateReport]:
    """Make ``updates`` teacher updates; return their reports. ``keep`` is called for a teacher that is the best yet."""
    return [subject.run_update(keep) for _ in range(updates)]
