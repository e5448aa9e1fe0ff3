"""Backtracking: return to the best teacher, with smaller steps, after an update that the judging lives rate worse.

Adam's first steps have the size of the full learning rate, whatever the hypergradient, and an off-diagonal coefficient
multiplies many log-probabilities. One step can therefore lead to a loss under which students fail, and whose
hypergradients are useless. With a factor below 1, training never continues from a worse teacher: backtracking (Armijo,
Pacific Journal of Mathematics 1966) with the judgement in place of the condition on the slope.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from fairseq_l2t.teaching.teacher_optimizer import TeacherOptimizer

__all__ = ["Backtracking"]


class Backtracking:
    """Keeps the best teacher with the moments of its optimizer.

    Args:
        optimizer: restored in place, with its teacher.
        shrink: factor in (0, 1] for all learning rates at each return; 1: no return.
    """

    def __init__(self, optimizer: TeacherOptimizer, shrink: float) -> None:
        self._optimizer, self._shrink = optimizer, shrink
        self._best: dict[str, Tensor] = {}

    @property
    def is_on(self) -> bool:
        """Whether backtracking is enabled."""
        return self._shrink < 1

    def mark(self) -> None:
        """Record the current teacher as the best one."""
        if self.is_on:
            self._best = {name: tensor.detach().clone() for name, tensor in self._optimizer.snapshot().items()}

    def go_back(self) -> None:
        """Return to the best teacher and reduce the learning rates."""
        if self.is_on and self._best:
            self._optimizer.restore(self._best)
            self._optimizer.shrink(self._shrink)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the recorded best teacher and its optimizer moments."""
        return dict(self._best)

    def load_state_dict(self, tensors: dict[str, Any]) -> None:
        """Restore the best teacher from the result of `state_dict`."""
        self._best = {name: tensor.clone() for name, tensor in tensors.items()}
