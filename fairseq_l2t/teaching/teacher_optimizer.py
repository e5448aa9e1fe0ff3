"""The teacher's optimizer: Adam on shared levels of the coefficients and on the deviation of each from its level.

W is written as ``W = 1 u' + D``: u (keys,) is the level that all words share, D (entries, keys) the deviations of
single words. The gradient of u is a sum over the words and is accurate in every window. The gradient of a rare word is
mostly noise, which Adam would enlarge to full steps. Therefore u has steps of ``lr`` and D of ``word_lr``. A full Phi
has two levels, one for its diagonal and one for the rest: an off-diagonal coefficient multiplies the log-probability of
a class that is not the label, many times that of the label, and there are ``entries - 1`` times as many. The one
off-diagonal coefficient of a smoothed Phi is a level without deviations. The teacher is that of the paper: files
contain only ``W``. With ``teacher_optimizer="plain"`` there are no levels, and Adam steps on W and V, as in the paper.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fairseq_l2t.loss.teacher import Teacher
from fairseq_l2t.teaching.plan import TeachingPlan

__all__ = ["TeacherOptimizer"]


class TeacherOptimizer:
    """Ascends the hypergradient.

    Args:
        teacher: changed in place.
        options: ``teacher_lr`` is the step of the shared level u and of the queries V, ``teacher_word_lr`` that of the
            deviations D (0 keeps one coefficient for all words), ``teacher_off_diagonal_lr`` that of the level which
            the off-diagonal coefficients of a full or smoothed Phi share; ``teacher_clip_norm`` bounds the norm of the
            hypergradient that reaches Adam.
    """

    def __init__(self, teacher: Teacher, options: TeachingPlan) -> None:
        self._teacher, self._clip_norm = teacher, options.teacher_clip_norm
        values = teacher.values.detach()
        rows = teacher.rows
        self._rows = {"shared": rows.pop("of_targets"), **rows}
        self._is_plain = options.teacher_optimizer == "plain"
        self._levels = {name: values[rows].mean(dim=0) for name, rows in self._rows.items()}
        if self._is_plain:
            self._levels = {name: torch.zeros_like(level) for name, level in self._levels.items()}
        self._word = values - self._shared()
        groups: list[dict[str, Any]] = [
            {"params": [self._levels["shared"], teacher.queries]},
            {"params": [self._word], "lr": options.teacher_word_lr},
        ]
        if "off_diagonal" in self._levels:
            groups.append({"params": [self._levels["off_diagonal"]], "lr": options.teacher_off_diagonal_lr})
        self._adam = torch.optim.Adam(groups, lr=options.teacher_lr, betas=options.teacher_adam_betas, maximize=True)
        self.rate_factor = 1.0

    def step(self, theta: dict[str, Tensor], norm: float) -> None:
        """Update the teacher by ``theta`` (name -> hypergradient), whose norm is ``norm``."""
        scale = self._clip_norm / norm if self._clip_norm and norm > self._clip_norm else 1.0
        values_bar = theta["values"] * scale
        if not self._is_plain:  # Adam leaves what has no gradient as it is
            for name, rows in self._rows.items():
                self._levels[name].grad = values_bar[rows].sum(dim=0)
        self._word.grad = values_bar.clone()
        # The level alone moves the off-diagonal coefficient of a smoothed Phi.
        if self._teacher.form == "smoothed" and not self._is_plain:
            self._word.grad[self._rows["off_diagonal"]] = 0.0
        self._teacher.queries.grad = theta["queries"] * scale
        self._adam.step()
        self._adam.zero_grad()
        with torch.no_grad():
            self._teacher.values.copy_(self._shared() + self._word)

    def shrink(self, factor: float) -> None:
        """Multiply all learning rates by ``factor``; ``rate_factor`` is the product of all factors so far."""
        self.rate_factor *= factor
        for group in self._adam.param_groups:
            group["lr"] *= factor

    def _shared(self) -> Tensor:
        """Return the level of each coefficient, (coefficients, keys) or, where all have one, (keys,)."""
        if len(self._levels) == 1:
            return self._levels["shared"]
        shared = torch.empty_like(self._teacher.values)
        for name, rows in self._rows.items():
            shared[rows] = self._levels[name]
        return shared

    def state_dict(self) -> dict[str, Tensor]:
        """Return the parts of W and the moments of Adam, by name."""
        tensors = {**self._levels, "word": self._word}
        for name, parameter in self._parameters().items():
            for key, moment in self._adam.state[parameter].items():
                tensors[f"{name}.{key}"] = moment
        return tensors

    def load_state_dict(self, tensors: dict[str, Any]) -> None:
        """Restore the result of `state_dict`."""
        for name, level in self._levels.items():
            level.copy_(tensors[name])
        self._word.copy_(tensors["word"])
        for name, parameter in self._parameters().items():
            prefix = f"{name}."
            self._adam.state[parameter] = {
                key[len(prefix) :]: moment.clone() for key, moment in tensors.items() if key.startswith(prefix)
            }

    def snapshot(self) -> dict[str, Tensor]:
        """Return the teacher and `state_dict`, under the prefixes ``teacher.`` and ``optimizer.``; not copied."""
        own = {f"teacher.{name}": parameter.detach() for name, parameter in self._teacher.named_parameters()}
        return {**own, **{f"optimizer.{name}": tensor for name, tensor in self.state_dict().items()}}

    def restore(self, snapshot: Mapping[str, Tensor]) -> None:
        """Restore teacher and optimizer from the result of `snapshot`; the learning rates stay."""
        with torch.no_grad():
            for name, parameter in self._teacher.named_parameters():
                parameter.copy_(snapshot[f"teacher.{name}"])
        prefix = "optimizer."
        own = {name[len(prefix) :]: tensor for name, tensor in snapshot.items() if name.startswith(prefix)}
        self.load_state_dict(own)

    def _parameters(self) -> dict[str, Tensor]:
        return {**self._levels, "word": self._word, "queries": self._teacher.queries}
