"""The state s_t of a student: named measures of its progress, each in [0, 1].

Source: Wu et al., NeurIPS 2018, section 4.1 (iteration, training accuracy, dev accuracy, all normalised into
[0, 1]), carried over to translation: token accuracy and loss in place of class accuracy, dev BLEU where it is
computed. The state is data: nothing is differentiated through it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

__all__ = ["BASE_FEATURES", "BLEU_FEATURE", "NamedMeasures", "StudentState", "require_same_features"]

BASE_FEATURES = ("progress", "train_accuracy", "train_loss", "dev_accuracy", "dev_loss")
BLEU_FEATURE = "dev_bleu"

_SMOOTHING = 0.95
"""Weight of the past in the running training measures: they remember about 20 updates."""


class NamedMeasures:
    """Named measures of a student, each in [0, 1], and the vector the teacher is shown: progress, then these.

    Args:
        initial: what each measure stands at before anything is measured. None is 0: a feature that is exactly zero
            would leave its column of V without a hypergradient.
        total_updates: length of the student's life, for ``progress``.

    Raises:
        ValueError: ``total_updates`` below 1.
    """

    def __init__(self, initial: Mapping[str, float], total_updates: int) -> None:
        if total_updates < 1:
            raise ValueError(f"--total-updates: {total_updates}; expected at least 1")
        self.features: tuple[str, ...] = ("progress", *initial)
        self.total_updates = total_updates
        self._initial = dict(initial)
        self.reset()

    def reset(self) -> None:
        """Forget every measure: a new student starts its life."""
        self._measures = dict(self._initial)

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

    def _fold(self, name: str, value: float) -> None:
        """Take one update's value into a running measure."""
        self._measures[name] = _SMOOTHING * self._measures[name] + (1 - _SMOOTHING) * _unit(value)


class StudentState(NamedMeasures):
    """The measures of one sequence student.

    Before anything is measured every measure stands at chance level for ``entries`` words (accuracy and
    BLEU ``1 / entries``, loss 1).

    Args:
        entries: size of the target vocabulary; losses are divided by its logarithm.
        total_updates: length of the student's life, for ``progress``.
        with_bleu: whether ``dev_bleu`` is one of the features.

    Raises:
        ValueError: ``entries`` below 2 or ``total_updates`` below 1.
    """

    def __init__(self, entries: int, total_updates: int, *, with_bleu: bool = False) -> None:
        if entries < 2:
            raise ValueError(f"entries: {entries}; expected at least 2")
        self._entries = entries
        names = BASE_FEATURES[1:] + ((BLEU_FEATURE,) if with_bleu else ())
        super().__init__({name: 1.0 if name.endswith("_loss") else 1.0 / entries for name in names}, total_updates)

    def observe_training(self, loss: float, accuracy: float) -> None:
        """Fold one update's nll per token (nats) and token accuracy into the running training measures."""
        self._fold("train_loss", self._relative(loss))
        self._fold("train_accuracy", accuracy)

    def observe_dev(self, loss: float, accuracy: float, bleu: float | None = None) -> None:
        """Keep the newest dev measures: nll per token (nats), token accuracy, BLEU in [0, 100] or None."""
        self._measures["dev_loss"] = self._relative(loss)
        self._measures["dev_accuracy"] = _unit(accuracy)
        if bleu is not None and BLEU_FEATURE in self._measures:
            self._measures[BLEU_FEATURE] = max(1.0 / self._entries, _unit(bleu / 100))

    def _relative(self, loss: float) -> float:
        return _unit(loss / math.log(self._entries))


def require_same_features(given: Sequence[str], expected: Sequence[str], source: str) -> None:
    """Raise ValueError where two lists of feature names differ; ``source`` says where ``given`` came from."""
    if list(given) != list(expected):
        raise ValueError(f"student features of the {source}: {list(given)}; this student has {list(expected)}")


def _unit(value: float) -> float:
    # A loss that is not a number reads as the worst there is; the update itself reports it.
    return min(1.0, max(0.0, value)) if math.isfinite(value) else 1.0
