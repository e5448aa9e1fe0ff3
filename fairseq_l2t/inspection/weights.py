"""Coefficients of words, and what they mean beside plain cross-entropy.

The loss of a token of log-probability l is ``-scale sigmoid(Phi l)``, mixed with a share a of ``-l``. Its
derivative with respect to l is ``-(a + (1 - a) scale Phi s (1 - s))``, s the sigmoid; that of cross-entropy
is -1. Where the student finds the word likely (l near 0), s (1 - s) is 1/4, which gives the *weight*
``a + (1 - a) scale Phi / 4``. At ``--loss-level sentence`` s is that of the whole sentence, and the
weight that of a word in a likely one. A smoothed Phi has psi times the mean log-probability of all words under the same
sigmoid; its weight is what psi is in place of Phi.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from fairseq_l2t.inspection.dictionary import NEVER_TARGETS, TargetDictionary
from fairseq_l2t.inspection.errors import InspectionError
from fairseq_l2t.loss.dynamic_loss import LossShape
from fairseq_l2t.storage import TeacherFile

__all__ = ["WordWeights", "word_weights"]


@dataclass(frozen=True)
class WordWeights:
    """Coefficients at some stages, of the words that can be targets.

    Args:
        progress: (stages,), increasing.
        words: the symbols looked at.
        counts: (words,), occurrences in the training text; -1 where unknown.
        coefficients: Phi, (stages, words).
        shape: how Phi enters the loss.
        smoothing: coefficient psi of the mean log-probability of all words (stages,); None where the teacher has none.
    """

    progress: np.ndarray
    words: tuple[str, ...]
    counts: np.ndarray
    coefficients: np.ndarray
    shape: LossShape
    smoothing: np.ndarray | None = None

    @property
    def weights(self) -> np.ndarray:
        """Pull on a likely token relative to plain cross-entropy, (stages, words): 1 means the same."""
        return self.shape.cross_entropy_mix + self._slope * self.coefficients

    @property
    def smoothing_weights(self) -> np.ndarray | None:
        """Pull on the mean log-probability of all words in the same measure, (stages,).

        Label smoothing E has weights of 1 - E on the target and E here.
        """
        return None if self.smoothing is None else self._slope * self.smoothing

    @property
    def _slope(self) -> float:
        return (1 - self.shape.cross_entropy_mix) * self.shape.scale / 4

    @property
    def change(self) -> np.ndarray:
        """Weight at the last stage less that at the first, (words,)."""
        weights = self.weights
        return weights[-1] - weights[0]

    def ranked(self, values: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the indices of the ``number`` highest of ``values`` (words,), best first, and the lowest.

        Equal values stand in the order of the dictionary. Where there are too few words for both, each has
        half.
        """
        number = min(number, max(1, len(values) // 2))
        descending = np.argsort(-values, kind="stable")
        ascending = np.argsort(values, kind="stable")
        return descending[:number], ascending[:number]


def word_weights(
    teacher_file: TeacherFile,
    dictionary: TargetDictionary,
    progress: np.ndarray,
    states: np.ndarray,
    *,
    min_count: int = 1,
) -> WordWeights:
    """Ask the teacher for the coefficients at ``states`` (stages, features) of stages ``progress`` (stages,).

    Args:
        min_count: words with fewer occurrences in the dictionary are left out; so are the symbols that are
            never targets. Those whose count the dictionary does not say (``</s>``, ``<unk>``) stay.

    Raises:
        InspectionError: no word is left.
    """
    kept = [
        index
        for index, (symbol, count) in enumerate(zip(dictionary.symbols, dictionary.counts, strict=True))
        if symbol not in NEVER_TARGETS and (count is None or count >= min_count)
    ]
    if not any(dictionary.counts[index] is not None for index in kept):
        raise InspectionError(f"--min-count: {min_count}; no word of the dictionary occurs that often")
    with torch.no_grad():
        inputs = torch.from_numpy(states).to(teacher_file.teacher.values)
        coefficients = torch.stack([teacher_file.teacher(state) for state in inputs]).double().numpy()
    is_smoothed = teacher_file.teacher.form == "smoothed"
    counts = [-1 if dictionary.counts[index] is None else dictionary.counts[index] for index in kept]
    return WordWeights(
        progress=np.asarray(progress, dtype=np.float64),
        words=tuple(dictionary.symbols[index] for index in kept),
        counts=np.array(counts),
        coefficients=coefficients[:, kept],
        shape=teacher_file.settings.loss_shape,
        smoothing=coefficients[:, -1] if is_smoothed else None,
    )
