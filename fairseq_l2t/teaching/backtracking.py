"""Back to the best teacher, with smaller steps, after an update that the lives that judge call worse.

Adam's first steps are of the full learning rate whatever the hypergradient, and a coefficient beside the diagonal
weighs many log-probabilities: one step can lead to a loss under which students die, whose hypergradients tell nothing.
With the factor below 1 the training is a search that never goes on from what is worse: backtracking (Armijo, Pacific
Journal of Mathematics 1966) with the judgement in place of the condition on the slope.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fairseq_l2t.loss.teacher import Teacher
from fairseq_l2t.teaching.teacher_optimizer import TeacherOptimizer

__all__ = ["Backtracking"]


class Backtracking:
    """Keeps the best teacher with the moments of its optimizer.

    Args:
        teacher, optimizer: brought back in place.
        shrink: factor in (0, 1] of all learning rates at each return; at 1 there is none.
    """

    def __init__(self, teacher: Teacher, optimizer: TeacherOptimizer, shrink: float) -> None:
        self._teacher, self._optimizer, self._shrink = teacher, optimizer, shrink
        self._best: dict[str, Tensor] = {}

    @property
    def is_on(self) -> bool:
        """Whether a worse teacher is left."""
        return self._shrink < 1

    def mark(self) -> None:
        """Take the teacher as it is for the best."""
        if self.is_on:
            self._best = {name: tensor.detach().clone() for name, tensor in self._tensors().items()}

    def go_back(self) -> None:
        """Return to the best teacher, and make the steps to come smaller."""
        if self.is_on and self._best:
            self._restore(self._best)
            self._optimizer.shrink(self._shrink)

    def state_dict(self) -> dict[str, Tensor]:
        """Return what was marked."""
        return dict(self._best)

    def load_state_dict(self, tensors: dict[str, Any]) -> None:
        """Take what `state_dict` returned for the best."""
        self._best = {name: tensor.clone() for name, tensor in tensors.items()}

    def _tensors(self) -> dict[str, Tensor]:
        own = {f"teacher.{name}": parameter for name, parameter in self._teacher.named_parameters()}
        return {**own, **{f"optimizer.{name}": tensor for name, tensor in self._optimizer.state_dict().items()}}

    def _restore(self, tensors: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, parameter in self._teacher.named_parameters():
                parameter.copy_(tensors[f"teacher.{name}"])
        prefix = "optimizer."
        self._optimizer.load_state_dict(
            {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}
        )
