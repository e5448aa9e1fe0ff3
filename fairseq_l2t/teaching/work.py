"""The work of a run in student updates, forward and back, and the time that it still takes.

A teacher update of a whole life takes minutes. The estimate is therefore made from student updates and steps back
through them, which take a fraction of a second each.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from fairseq_l2t.teaching.plan import TeachingPlan

__all__ = ["RunWork", "Steps", "StepKind", "steps_of"]

StepKind = Literal["life", "judging life", "sweep"]
"""A student update in a life that trains the teacher, one in a life that judges it, or a step back through one."""

COST_OF_STEP_BACK = 2.0
"""Cost of a step back in student updates, until one was timed: benchmarks/cost/README.md has 1.5 to 5."""


@dataclass(frozen=True)
class Steps:
    """Numbers of student updates, and of steps back through them."""

    forward: int
    back: int

    def __sub__(self, other: Steps) -> Steps:
        return Steps(max(0, self.forward - other.forward), max(0, self.back - other.back))

    def cost(self, forward: float = 1.0, back: float = COST_OF_STEP_BACK) -> float:
        """Return the cost for the costs of one step of each kind."""
        return forward * self.forward + back * self.back


def steps_of(plan: TeachingPlan, teacher_updates: int, processes: int = 1) -> Steps:
    """Return the steps of the first teacher updates of a run in which no window ends in NaN or infinity.

    Of several processes, those of the first one, which lives at least as many lives as any other.
    """
    begin, window = plan.cross_entropy_updates, plan.unroll_length
    taught = plan.total_updates - begin
    windows = -(-taught // window)
    lives, more = divmod(teacher_updates, windows)
    judged = -(-plan.holdout_lives // processes) * plan.total_updates
    of_update = -(-plan.lives_per_update // processes)  # more than one only where a window is a whole life
    last_window = taught - (windows - 1) * window
    back_of_life = (windows - 1) * min(window, plan.kept_length) + min(last_window, plan.kept_length)
    forward = lives * (of_update * plan.total_updates + judged)
    if more:
        forward += begin + more * window
    if teacher_updates:  # before its first update the teacher is judged too
        forward += judged
    return Steps(forward, lives * of_update * back_of_life + more * min(window, plan.kept_length))


class RunWork:
    """Counts the steps of a run and times them.

    Args:
        plan: the numbers of the run.
        made: teacher updates made before.
        clock: returns seconds.
        processes: number of processes that share the run.
    """

    def __init__(
        self, plan: TeachingPlan, made: int, clock: Callable[[], float] = time.monotonic, processes: int = 1
    ) -> None:
        self.plan, self._clock, self._processes = plan, clock, processes
        self._all = steps_of(plan, plan.teacher_updates, processes)
        self._last = clock()
        self._seconds, self._timed = {"forward": 0.0, "back": 0.0}, {"forward": 0, "back": 0}
        self.kind: StepKind = "life"
        self.update = 0
        self.begin_update(made)

    def begin_update(self, made: int) -> None:
        """Go on to the teacher update after the first ``made``."""
        self.made = made
        self._before, self._after = (steps_of(self.plan, one, self._processes) for one in (made, made + 1))
        self._forward = self._back = 0

    def step(self, kind: StepKind, update: int) -> None:
        """Count one step.

        Args:
            kind: of the step.
            update: number of the student update in its life, from 1.
        """
        self.kind, self.update = kind, update
        direction = "back" if kind == "sweep" else "forward"
        if direction == "back":
            self._back += 1
        else:
            self._forward += 1
        now = self._clock()
        self._seconds[direction] += now - self._last
        self._timed[direction] += 1
        self._last = now

    @property
    def share(self) -> float:
        """Share of the run that is done, in [0, 1]."""
        whole = self._all.cost()
        return 1 - (self._all - self._done).cost() / whole if whole else 1.0

    @property
    def seconds_left(self) -> float | None:
        """Estimated seconds to the end of the run; None before the first student update."""
        return self._seconds_for(self._all - self._done)

    @property
    def seconds_left_of_update(self) -> float | None:
        """Estimated seconds to the end of the teacher update; None before the first student update."""
        return self._seconds_for(self._after - self._done)

    @property
    def place(self) -> str:
        """The newest step in words."""
        if self.plan.teacher_updates == 0 or self.update == 0:
            return "at the start"
        update = f"update {self.update} of {self.plan.total_updates}"
        words = {"life": f"student {update}", "judging life": f"judging life, {update}", "sweep": f"back at {update}"}
        return (
            f"teacher update {min(self.made + 1, self.plan.teacher_updates)} of {self.plan.teacher_updates}, "
            + (words[self.kind])
        )

    @property
    def _done(self) -> Steps:
        # A window that ended in NaN is made again: its steps do not count twice.
        in_update = self._after - self._before
        return Steps(
            self._before.forward + min(self._forward, in_update.forward),
            self._before.back + min(self._back, in_update.back),
        )

    def _seconds_for(self, steps: Steps) -> float | None:
        if not self._timed["forward"]:
            return None
        forward = self._seconds["forward"] / self._timed["forward"]
        back = self._seconds["back"] / self._timed["back"] if self._timed["back"] else COST_OF_STEP_BACK * forward
        return steps.cost(forward, back)
