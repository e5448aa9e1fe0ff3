"""How the teacher moves: Adam, on a shared level of the coefficients and on each word's deviation from it.

W is written as ``W = 1 u' + D``: u (keys,) is what all words share, D (entries, keys) what is a word's own. The
gradient of u is the sum over the words, well measured in every window; that of a rare word is mostly noise, which Adam
would blow up to full steps. So u takes steps of ``lr`` and D of ``word_lr``. The teacher itself is the paper's: ``W``
alone is kept in files.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fairseq_l2t.core.teacher import Teacher

__all__ = ["TeacherOptimizer"]


class TeacherOptimizer:
    """Ascends the hypergradient.

    Args:
        teacher: moved in place.
        lr: step of the shared level u and of the queries V.
        word_lr: step of the words' deviations D; 0 keeps one coefficient for all words.
        clip_norm: bound on the norm of the hypergradient that reaches Adam; 0: none.
    """

    def __init__(self, teacher: Teacher, *, lr: float, word_lr: float, clip_norm: float = 0.0) -> None:
        self._teacher = teacher
        self._clip_norm = clip_norm
        self._shared = teacher.values.detach().mean(dim=0)
        self._word = teacher.values.detach() - self._shared
        groups = [{"params": [self._shared, teacher.queries]}, {"params": [self._word], "lr": word_lr}]
        self._adam = torch.optim.Adam(groups, lr=lr, maximize=True)

    def step(self, theta: dict[str, Tensor], norm: float) -> None:
        """Move the teacher along ``theta`` (name -> hypergradient), whose norm is ``norm``."""
        scale = self._clip_norm / norm if self._clip_norm and norm > self._clip_norm else 1.0
        values_bar = theta["values"] * scale
        self._shared.grad, self._word.grad = values_bar.sum(dim=0), values_bar
        self._teacher.queries.grad = theta["queries"] * scale
        self._adam.step()
        self._adam.zero_grad()
        with torch.no_grad():
            self._teacher.values.copy_(self._shared + self._word)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the parts of W and the moments of Adam, by name."""
        tensors = {"shared": self._shared, "word": self._word}
        for name, parameter in self._parameters().items():
            for key, moment in self._adam.state[parameter].items():
                tensors[f"{name}.{key}"] = moment
        return tensors

    def load_state_dict(self, tensors: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        self._shared.copy_(tensors["shared"])
        self._word.copy_(tensors["word"])
        for name, parameter in self._parameters().items():
            prefix = f"{name}."
            self._adam.state[parameter] = {
                key[len(prefix) :]: moment.clone() for key, moment in tensors.items() if key.startswith(prefix)
            }

    def _parameters(self) -> dict[str, Tensor]:
        return {"shared": self._shared, "word": self._word, "queries": self._teacher.queries}
