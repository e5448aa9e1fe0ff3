"""Lives of a student: their start, updates that are not saved, and the times of the dev measures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from torch import Tensor

from fairseq_l2t.loss.teacher import Teacher
from fairseq_l2t.teaching.plan import TeachingPlan
from fairseq_l2t.teaching.work import StepKind
from fairseq_l2t.unroll.student import Student
from fairseq_l2t.unroll.trajectory import advance

__all__ = ["Lives", "LivingStudent"]


class LivingStudent(Student, Protocol):
    """A student that can be restarted, saved and restored."""

    def restart(self, seed: int) -> None:
        """Begin a new life with fresh parameters."""

    def state_dict(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return tensors and plain values for `load_state_dict`."""

    def load_state_dict(self, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        """Continue an interrupted life."""


class Lives:
    """Lives of one student under one teacher.

    Args:
        student: `begin` starts its life.
        teacher: gives the coefficients; its values at the time of an update are used.
        plan: the numbers of the run.
        observe_dev: () -> None; updates the dev measures of the student's state. It is called at all multiples of
            ``plan.dev_interval`` updates of a life; with 0, after the cross-entropy updates and after each window.
        on_step: called after every student update with its kind and number, from 1.
    """

    def __init__(
        self,
        student: LivingStudent,
        teacher: Teacher,
        plan: TeachingPlan,
        observe_dev: Callable[[], None],
        on_step: Callable[[StepKind, int], None] = lambda kind, update: None,
    ) -> None:
        self.student, self._teacher, self._plan = student, teacher, plan
        self._measure_on_dev, self._dev_interval = observe_dev, plan.dev_interval
        self._on_step = on_step
        self._kind: StepKind = "life"
        self._seen: list[dict[str, float]] = []

    def begin(self, seed: int) -> None:
        """Start a new life and make its cross-entropy updates, which do not depend on the teacher and are not saved."""
        self.student.restart(seed)
        self._seen = [self._current_state()]
        if self.student.cross_entropy_updates:
            self.advance(self.student.cross_entropy_updates)
            self.end_window()

    def advance(self, steps: int) -> None:
        """Make ``steps`` updates without saving them."""
        advance(self.student, self._teacher, steps, self.after_update)

    def next_window(self) -> int:
        """Return the number of updates in the next window."""
        return min(self._plan.unroll_length, self._plan.total_updates - self.student.update)

    def after_update(self) -> None:
        """Report the update, and measure on dev if it is time."""
        self._on_step(self._kind, self.student.update)
        self._observe_if_due()

    def _observe_if_due(self) -> None:
        """Measure on dev at the interval, as fairseq-train will, so that both have dev measures of the same age."""
        if self._dev_interval and self.student.update % self._dev_interval == 0:
            self._observe_dev()

    def _observe_dev(self) -> None:
        self._measure_on_dev()
        self._seen.append(self._current_state())

    def _current_state(self) -> dict[str, float]:
        state = self.student.state
        return dict(zip(state.features, state.vector(self.student.update).tolist(), strict=True))

    def take_states(self) -> list[dict[str, float]]:
        """Return, by feature name, the states at the start of the life, at each measure on dev, and now.

        States from before the last call are left out.
        """
        found, self._seen = self._seen, []
        now = self._current_state()
        return found if found and found[-1] == now else [*found, now]

    def end_window(self) -> None:
        """Measure on dev, unless measures are taken at multiples of an interval."""
        if not self._dev_interval:
            self._observe_dev()

    def is_over(self) -> bool:
        """Whether the student has made all updates of its life."""
        return self.student.update >= self._plan.total_updates

    def live(self, seed: int) -> None:
        """Make a whole life without saving updates; the updates are the same as in saved windows."""
        self._kind = "judging life"
        try:
            self.begin(seed)
            while not self.is_over():
                self.advance(self.next_window())
                self.end_window()
        finally:
            self._kind = "life"
