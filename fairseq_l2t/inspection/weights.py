"""Coefficients of words, and their weight relative to plain cross-entropy.

The loss of a token with log-probability l is ``-scale sigmoid(Phi l)``, mixed with a share a of ``-l``. Its
derivative with respect to l is ``-(a + (1 - a) scale Phi s (1 - s))``, where s is the sigmoid; that of cross-entropy
is -1. For a likely word (l near 0) s (1 - s) is 1/4, which gives the *weight* ``a + (1 - a) scale Phi / 4``. With
``--loss-level sentence`` s is the sigmoid of the whole sentence, and the weight is that of a word in a likely
sentence. A smoothed Phi adds psi times the mean log-probability of all words inside the same sigmoid; the weight of
psi is computed as that of Phi.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from fairseq_l2t.inspection.dictionary import NEVER_TARGETS, TargetDictionary
from fairseq_l2t.inspection.errors import InspectionError
from fairseq_l2t.loss.dynamic_loss import LossShape
from fairseq_l2t.storage import TeacherFile

__all__ = ["Floats", "Indices", "WordWeights", "word_weights"]

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class WordWeights:
    """Coefficients of the words that can be targets, at several stages of a life.

    Args:
        progress: (stages,), increasing.
        words: the symbols.
        counts: (words,), occurrences in the training text; -1 where unknown.
        coefficients: Phi, (stages, words).
        shape: scale, cross-entropy share and level of the loss.
        smoothing: coefficient psi of the mean log-probability of all words (stages,); None without a smoothed Phi.
    """

    progress: Floats
    words: tuple[str, ...]
    counts: Indices
    coefficients: Floats
    shape: LossShape
    smoothing: Floats | None = None

    @property
    def weights(self) -> Floats:
        """Derivative at a likely token relative to plain cross-entropy, (stages, words): 1 is the same."""
        return self.shape.cross_entropy_mix + self._slope * self.coefficients

    @property
    def smoothing_weights(self) -> Floats | None:
        """Derivative at the mean log-probability of all words in the same measure, (stages,).

        Label smoothing E has weights of 1 - E on the target and E here.
        """
        return None if self.smoothing is None else self._slope * self.smoothing

    @property
    def _slope(self) -> float:
        return (1 - self.shape.cross_entropy_mix) * self.shape.scale / 4

    @property
    def change(self) -> Floats:
        """Weight at the last stage minus weight at the first, (words,)."""
        weights = self.weights
        change: Floats = weights[-1] - weights[0]
        return change

    def ranked(self, values: Floats, number: int) -> tuple[Indices, Indices]:
        """Return the indices of the ``number`` highest of ``values`` (words,), highest first, and of the lowest.

        Equal values are in the order of the dictionary. If there are too few words for both, each has half.
        """
        number = min(number, max(1, len(values) // 2))
        descending = np.argsort(-values, kind="stable")
        ascending = np.argsort(values, kind="stable")
        return descending[:number], ascending[:number]


def word_weights(
    teacher_file: TeacherFile,
    dictionary: TargetDictionary,
    progress: Floats,
    states: Floats,
    *,
    min_count: int = 1,
) -> WordWeights:
    """Compute the teacher's coefficients at the states of several stages.

    Args:
        teacher_file: the teacher.
        dictionary: its target dictionary.
        progress: (stages,), increasing.
        states: (stages, features), in the order of the teacher's features.
        min_count: words with fewer occurrences in the dictionary are left out, and so are the symbols that are
            never targets. Symbols without a count (``</s>``, ``<unk>``) are kept.

    Raises:
        InspectionError: no word has ``min_count`` occurrences.
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
    counts = [-1 if count is None else count for count in (dictionary.counts[index] for index in kept)]
    return WordWeights(
        progress=np.asarray(progress, dtype=np.float64),
        words=tuple(dictionary.symbols[index] for index in kept),
        counts=np.array(counts, dtype=np.int64),
        coefficients=coefficients[:, kept],
        shape=teacher_file.settings.loss_shape,
        smoothing=coefficients[:, -1] if is_smoothed else None,
    )
