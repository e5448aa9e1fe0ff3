"""The state s_t of a classifier: iteration, training accuracy, dev accuracy and the dev precision of every class.

Source: Wu et al., NeurIPS 2018, section 4.1: 13 numbers in [0, 1] for 10 classes. The state is data: nothing is
differentiated through it.
"""

from __future__ import annotations

import torch
from torch import Tensor

from fairseq_l2t.loss.student_state import NamedMeasures

__all__ = ["ClassifierState"]


class ClassifierState(NamedMeasures):
    """The measures of one classifier; at chance level before the first measurement.

    Args:
        classes: number of classes, at least 2.
        total_updates: length of the student's life, for ``progress``.

    Raises:
        ValueError: fewer than 2 classes, or ``total_updates`` below 1.
    """

    def __init__(self, classes: int, total_updates: int) -> None:
        if classes < 2:
            raise ValueError(f"classes: {classes}; expected at least 2")
        self._classes = classes
        names = ("train_accuracy", "dev_accuracy", *(f"dev_precision_{number}" for number in range(classes)))
        super().__init__(dict.fromkeys(names, 1.0 / classes), total_updates)

    def observe_training(self, loss: float, accuracy: float) -> None:
        """Add one update's accuracy to the running one; ``loss`` (nats) is not part of this state."""
        self._fold("train_accuracy", accuracy)

    def observe_dev(self, predicted: Tensor, labels: Tensor) -> None:
        """Keep the newest dev measures.

        Args:
            predicted: most probable class of each dev image, (n,).
            labels: (n,).
        """
        right = predicted == labels
        chosen = torch.bincount(predicted, minlength=self._classes)
        hits = torch.bincount(predicted[right], minlength=self._classes)
        self._measures["dev_accuracy"] = float(right.double().mean())
        for number, (hit, count) in enumerate(zip(hits.tolist(), chosen.tolist(), strict=True)):
            # The precision of a class that is never chosen is undefined; teachers see 0.
            self._measures[f"dev_precision_{number}"] = hit / count if count else 0.0
