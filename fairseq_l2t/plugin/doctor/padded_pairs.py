"""Choice of pairs of different lengths, so that what is checked contains padding.

Batches are sorted by length: the first pairs of one often have the same lengths, and the checks would not see what the
model does at padded positions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fairseq_l2t.plugin.student.data import DevData

__all__ = ["Lengths", "described_lengths", "dev_pairs", "pairs_of_different_lengths"]

Lengths = NDArray[np.int64]
"""Source and target tokens of each pair, (pairs, 2)."""


def pairs_of_different_lengths(batch: Sequence[int], others: Sequence[int], lengths: Lengths, count: int) -> list[int]:
    """Return ``count`` pairs: the first of ``batch``, one of other lengths, then the next of ``batch``.

    The second pair differs from the first in both lengths if there is such a pair, and in one of them if there is not.
    It comes from ``batch`` if one there differs in both, else from ``others``; the nearest in length is taken.

    Args:
        batch: numbers of the pairs of a batch, at least one.
        others: numbers of further pairs.
        lengths: lengths of all pairs, by number.
        count: number of pairs, at least 2; fewer are returned if there are fewer.
    """
    first, *rest = batch
    found = [first]
    candidates = np.array([*rest, *others], dtype=np.int64)
    if len(candidates):
        gaps = np.abs(lengths[candidates] - lengths[first])
        from_others = np.arange(len(candidates)) >= len(rest)
        best = np.lexsort((gaps.sum(1), from_others, -(gaps > 0).sum(1)))[0]
        found.append(int(candidates[best]))
    found += [number for number in rest if number not in found]
    return found[:count]


def dev_pairs(dev: DevData, count: int) -> list[int]:
    """Return dev pairs of different lengths, of those that train the teacher."""
    pairs = list(dev.teaching)
    lengths = np.array([(dev.source_length(pair), len(dev.target(pair))) for pair in pairs])
    chosen = pairs_of_different_lengths(range(1), range(1, len(pairs)), lengths, count)
    return [pairs[position] for position in chosen]


def described_lengths(lengths: Sequence[Sequence[int]]) -> str:
    """Return the lengths (source, target) of pairs in words, and whether they make padding necessary."""
    sides = [sorted(column) for column in zip(*lengths, strict=True)]
    found = "; ".join(
        f"{side} of {' and '.join(map(str, column))} tokens"
        for side, column in zip(("sources", "targets"), sides, strict=True)
    )
    has_padding = all(len(set(column)) > 1 for column in sides)
    return found if has_padding else f"{found}; the data have no two pairs that differ in both"
