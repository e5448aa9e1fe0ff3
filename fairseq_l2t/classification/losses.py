"""Fixed losses that a taught loss is compared with.

To add one: write its class with ``needs_bias`` and ``per_example`` (`Criterion`), add it to ``_BUILDERS``, and add a
row to ``tests/classification/test_classification_losses.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from fairseq_l2t.classification.large_margin import LargeMarginSoftmax

__all__ = ["CRITERIA", "Criterion", "CrossEntropy", "LabelSmoothing", "SmoothZeroOne", "build_criterion"]


class Criterion(Protocol):
    """A loss of features and the classifier, a network's last layer."""

    @property
    def needs_bias(self) -> bool:
        """Whether the classifier has a bias."""

    def per_example(
        self, features: Tensor, classifier: nn.Linear, labels: Tensor, update: int
    ) -> tuple[Tensor, Tensor]:
        """Return the loss of each example (batch,) and the scores (batch, classes) that the student predicts by.

        Args:
            features: (batch, width).
            classifier: from features to scores.
            labels: (batch,).
            update: number of the update, counted from 0, for annealed losses.
        """


@dataclass(frozen=True)
class CrossEntropy:
    """``-log p_y``."""

    needs_bias = True

    def per_example(
        self, features: Tensor, classifier: nn.Linear, labels: Tensor, update: int
    ) -> tuple[Tensor, Tensor]:
        """See `Criterion.per_example`."""
        logits = classifier(features)
        return nn.functional.cross_entropy(logits, labels, reduction="none"), logits


@dataclass(frozen=True)
class LabelSmoothing:
    """Cross-entropy against ``(1 - epsilon) y + epsilon / classes`` (Szegedy et al., CVPR 2016, section 7).

    Raises:
        ValueError: epsilon outside [0, 1).
    """

    epsilon: float = 0.1
    needs_bias = True

    def __post_init__(self) -> None:
        if not 0 <= self.epsilon < 1:
            raise ValueError(f"--label-smoothing: {self.epsilon}; expected a number in [0, 1)")

    def per_example(
        self, features: Tensor, classifier: nn.Linear, labels: Tensor, update: int
    ) -> tuple[Tensor, Tensor]:
        """See `Criterion.per_example`."""
        logits = classifier(features)
        losses = nn.functional.cross_entropy(logits, labels, reduction="none", label_smoothing=self.epsilon)
        return losses, logits


@dataclass(frozen=True)
class SmoothZeroOne:
    """``-log sigmoid(K (log p_y - max_{j != y} log p_j))``, the smooth 0-1 loss of Wu et al. 2018, section 4.1.

    Args:
        k: K; the paper's is 50.

    Raises:
        ValueError: K is not a finite number above 0.
    """

    k: float = 50.0
    needs_bias = True

    def __post_init__(self) -> None:
        if not (self.k > 0 and math.isfinite(self.k)):
            raise ValueError(f"--smooth-k: {self.k}; expected a finite number above 0")

    def per_example(
        self, features: Tensor, classifier: nn.Linear, labels: Tensor, update: int
    ) -> tuple[Tensor, Tensor]:
        """See `Criterion.per_example`."""
        logits = classifier(features)
        # The normaliser of log p cancels in the difference.
        is_label = nn.functional.one_hot(labels, logits.shape[-1]).bool()
        rival = logits.masked_fill(is_label, -math.inf).amax(-1)
        own = logits.gather(-1, labels.unsqueeze(-1)).squeeze(-1)
        return -nn.functional.logsigmoid(self.k * (own - rival)), logits


_BUILDERS: dict[str, Callable[..., Criterion]] = {
    "cross-entropy": CrossEntropy,
    "label-smoothing": LabelSmoothing,
    "smooth-zero-one": SmoothZeroOne,
    "large-margin": LargeMarginSoftmax,
}

CRITERIA = tuple(_BUILDERS)
"""Names that `build_criterion` accepts."""


def build_criterion(name: str, **options: float) -> Criterion:
    """Return the criterion called ``name``; ``options`` are the arguments of its class.

    Raises:
        ValueError: an unknown name, or an option outside its range.
    """
    if name not in _BUILDERS:
        raise ValueError(f"--loss: {name}; expected one of {', '.join(CRITERIA)}")
    return _BUILDERS[name](**options)
