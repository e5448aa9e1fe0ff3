"""The state s_t of a student: named measures of its progress, each in [0, 1].

Source: Wu et al., NeurIPS 2018, section 4.1 (iteration, training accuracy, dev accuracy, all normalised to [0, 1]),
adapted to translation: token accuracy and loss in place of class accuracy, and dev BLEU if it is computed. The state is
data: nothing is differentiated through it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

__all__ = ["BASE_FEATURES", "BLEU_FEATURE", "NamedMeasures", "StudentState", "require_same_features"]

BASE_FEATURES = ("progress", "train_accuracy", "train_loss", "dev_accuracy", "dev_loss")
BLEU_FEATURE = "dev_bleu"

PAST_WEIGHT = 0.95
"""Weight of the past in the running training measures, an average over about 20 updates."""


class NamedMeasures:
    """Named measures of a student, each in [0, 1], and the state vector: progress, then the measures.

    Args:
        initial: value of each measure before the first measurement. None of them is 0, because a feature of exactly
            0 would give its column of V no hypergradient.
        total_updates: length of the student's life in updates, for ``progress``.

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
        """Set every measure to its initial value, for a new student."""
        self._measures = dict(self._initial)

    def vector(self, update: int) -> Tensor:
        """Return s_t (features,) in float64 on the CPU, before update number ``update`` (counted from 0)."""
        progress = min(1.0, update / self.total_updates)
        return torch.tensor([progress, *(self._measures[name] for name in self.features[1:])], dtype=torch.float64)

    def state_dict(self) -> dict[str, float]:
        """Return the measures by name, for a checkpoint."""
        return dict(self._measures)

    def load_state_dict(self, measures: Mapping[str, float]) -> None:
        """Set the measures to those of a checkpoint.

        Raises:
            ValueError: the names differ from those of this state.
        """
        require_same_features(list(measures), list(self._measures), "checkpoint")
        self._measures = {name: float(measures[name]) for name in self._measures}

    def _fold(self, name: str, value: float) -> None:
        """Add one update's value to a running measure."""
        self._measures[name] = PAST_WEIGHT * self._measures[name] + (1 - PAST_WEIGHT) * _unit(value)


class StudentState(NamedMeasures):
    """The measures of one sequence student.

    Initial values are the chance level for ``entries`` words (accuracy and BLEU ``1 / entries``, loss 1).

    Args:
        entries: size of the target vocabulary; losses are divided by its logarithm.
        total_updates: length of the student's life in updates, for ``progress``.
        with_bleu: whether ``dev_bleu`` is a feature.

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
        """Add one update's nll per token (nats) and token accuracy in [0, 1] to the running training measures."""
        self._fold("train_loss", self._relative(loss))
        self._fold("train_accuracy", accuracy)

    def observe_dev(self, loss: float, accuracy: float, bleu: float | None = None) -> None:
        """Store the newest dev measures: nll per token (nats), token accuracy in [0, 1], BLEU in [0, 100] or None."""
        self._measures["dev_loss"] = self._relative(loss)
        self._measures["dev_accuracy"] = _unit(accuracy)
        if bleu is not None and BLEU_FEATURE in self._measures:
            self._measures[BLEU_FEATURE] = max(1.0 / self._entries, _unit(bleu / 100))

    def _relative(self, loss: float) -> float:
        return _unit(loss / math.log(self._entries))


def require_same_features(given: Sequence[str], expected: Sequence[str], source: str) -> None:
    """Raise ValueError if two lists of feature names differ; ``source`` names the origin of ``given``."""
    if list(given) != list(expected):
        raise ValueError(f"student features of the {source}: {list(given)}; this student has {list(expected)}")


def _unit(value: float) -> float:
    # NaN counts as the worst loss; the update itself reports it.
    return min(1.0, max(0.0, value)) if math.isfinite(value) else 1.0
