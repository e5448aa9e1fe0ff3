"""The state s_t of a classifier: iteration, training accuracy, dev accuracy and the dev precision of every class.

Source: Wu et al., NeurIPS 2018, section 4.1: 13 numbers in [0, 1] for 10 classes. The state is data: nothing is
differentiated through it.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from fairseq_l2t.core.student_state import require_same_features

__all__ = ["ClassifierState"]

_SMOOTHING = 0.95
"""Weight of the past in the running training accuracy, as in `core.student_state`: it remembers about 20 updates."""


class ClassifierState:
    """The measures of one classifier and the vector the teacher is shown.

    Before anything is measured, every accuracy and precision stands at chance level: a feature that is exactly zero
    would leave its column of V without a hypergradient.

    Args:
        classes: number of classes, at least 2.
        total_updates: length of the student's life, for ``progress``.

    Raises:
        ValueError: a number below that.
    """

    def __init__(self, classes: int, total_updates: int) -> None:
        if classes < 2:
            raise ValueError(f"classes: {classes}; expected at least 2")
        if total_updates < 1:
            raise ValueError(f"--total-updates: {total_updates}; expected at least 1")
        precisions = tuple(f"dev_precision_{number}" for number in range(classes))
        self.features: tuple[str, ...] = ("progress", "train_accuracy", "dev_accuracy", *precisions)
        self.total_updates = total_updates
        self._classes = classes
        self.reset()

    def reset(self) -> None:
        """Forget every measure: a new student starts its life."""
        self._measures = {name: 1.0 / self._classes for name in self.features[1:]}

    def observe_training(self, loss: float, accuracy: float) -> None:
        """Fold one update's accuracy into the running one; ``loss`` (nats) has no part in this state."""
        before = self._measures["train_accuracy"]
        self._measures["train_accuracy"] = _SMOOTHING * before + (1 - _SMOOTHING) * accuracy

    def observe_dev(self, predicted: Tensor, labels: Tensor) -> None:
        """Keep the newest dev measures.

        Args:
            predicted: the student's first choice for each dev image, (n,).
            labels: (n,).
        """
        right = predicted == labels
        chosen = torch.bincount(predicted, minlength=self._classes)
        hits = torch.bincount(predicted[right], minlength=self._classes)
        self._measures["dev_accuracy"] = float(right.double().mean())
        for number, (hit, count) in enumerate(zip(hits.tolist(), chosen.tolist(), strict=True)):
            # A class that is never chosen has no precision; 0 is what teachers shall see of it.
            self._measures[f"dev_precision_{number}"] = hit / count if count else 0.0

    def vector(self, update: int) -> Tensor:
        """Return s_t (features,) in float64 on the CPU, before update number ``update`` (counted from 0)."""
        progress = min(1.0, update / self.total_updates)
        return torch.tensor([progress, *(self._measures[name] for name in self.features[1:])], dtype=torch.float64)

    def state_dict(self) -> dict[str, float]:
        """Return the measures by name, for a checkpoint."""
        return dict(self._measures)

    def load_state_dict(self, measures: Mapping[str, float]) -> None:
        """Take measures from a checkpoint.

        Raises:
            ValueError: the names are not those of this state.
        """
        require_same_features(list(measures), list(self._measures), "checkpoint")
        self._measures = {name: float(measures[name]) for name in self._measures}
