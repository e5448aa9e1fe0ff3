"""Lives of a student: how they begin, go on without being kept, and when they are measured on dev."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from torch import Tensor

from fairseq_l2t.loss.teacher import Teacher
from fairseq_l2t.teaching.plan import TeachingPlan
from fairseq_l2t.unroll.student import Student
from fairseq_l2t.unroll.trajectory import advance

__all__ = ["Lives", "LivingStudent"]


class LivingStudent(Student, Protocol):
    """A student that can start anew, be interrupted and go on."""

    def restart(self, seed: int) -> None:
        """Begin a new life with fresh parameters."""

    def state_dict(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return tensors and plain values that `load_state_dict` goes on from."""

    def load_state_dict(self, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        """Go on with an interrupted life."""


class Lives:
    """Lives of one student under one teacher.

    Args:
        student: its life is begun by `begin`.
        teacher: as it is when an update is made.
        plan: the numbers.
        observe_dev: () -> None; brings the dev measures of the student's state up to date; called at all
            multiples of ``plan.dev_interval`` updates of a life; 0: after the cross-entropy updates and after each
            window.
    """

    def __init__(
        self,
        student: LivingStudent,
        teacher: Teacher,
        plan: TeachingPlan,
        observe_dev: Callable[[], None],
    ) -> None:
        self._student, self._teacher, self._plan = student, teacher, plan
        self._measure_on_dev, self._dev_interval = observe_dev, plan.dev_interval
        self._seen: list[dict[str, float]] = []

    def begin(self, seed: int) -> None:
        """Start anew and make the cross-entropy updates, which do not depend on the teacher and need not be kept."""
        self._student.restart(seed)
        self._seen = [self._current_state()]
        if self._student.cross_entropy_updates:
            self.advance(self._student.cross_entropy_updates)
            self.end_window()

    def advance(self, steps: int) -> None:
        """Make ``steps`` updates without keeping them."""
        advance(self._student, self._teacher, steps, self.observe_if_due)

    def next_window(self) -> int:
        """Return how many updates the next window has."""
        return min(self._plan.unroll_length, self._plan.total_updates - self._student.update)

    def observe_if_due(self) -> None:
        """Measure on dev as often as fairseq-train validates: later the teacher sees dev measures of the same age."""
        if self._dev_interval and self._student.update % self._dev_interval == 0:
            self._observe_dev()

    def _observe_dev(self) -> None:
        self._measure_on_dev()
        self._seen.append(self._current_state())

    def _current_state(self) -> dict[str, float]:
        state = self._student.state
        return dict(zip(state.features, state.vector(self._student.update).tolist(), strict=True))

    def take_states(self) -> list[dict[str, float]]:
        """Return, by feature name, the states at the start of the life, at each measure on dev, and now.

        States of before the last call are left out.
        """
        found, self._seen = self._seen, []
        now = self._current_state()
        return found if found and found[-1] == now else [*found, now]

    def end_window(self) -> None:
        """Measure on dev, unless that is done at multiples of an interval."""
        if not self._dev_interval:
            self._observe_dev()

    def is_over(self) -> bool:
        """Whether the student has made all updates of its life."""
        return self._student.update >= self._plan.total_updates

    def live(self, seed: int) -> None:
        """Make a whole life without keeping it, just as one with windows that are kept."""
        self.begin(seed)
        while not self.is_over():
            self.advance(self.next_window())
            self.end_window()
