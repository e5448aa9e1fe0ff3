"""Pairs of different lengths are found where there are any."""

import numpy as np
import pytest

from fairseq_l2t.plugin.doctor.padded_pairs import described_lengths, dev_pairs, pairs_of_different_lengths
from fairseq_l2t.testing.tiny_students import make_student

LENGTHS = np.array([(5, 5), (5, 5), (5, 6), (9, 9), (6, 7), (5, 5), (4, 5)])


@pytest.mark.parametrize(
    ("batch", "others", "expected"),
    [
        ([0, 1, 3, 4], [6], [0, 4, 1]),  # the nearest of the batch that differ in both
        ([0, 1, 2], [3, 4], [0, 4, 1]),  # none in the batch differs in both
        ([0, 1, 5], [6, 2, 0], [0, 6, 1]),  # none at all
        ([0, 1, 5], [0, 1, 5], [0, 1, 5]),  # all are alike
        ([0], [3], [0, 3]),
        ([0], [], [0]),
    ],
)
def test_choice(batch, others, expected):
    assert pairs_of_different_lengths(batch, others, LENGTHS, 3) == expected


def test_lengths_in_words():
    assert described_lengths([(5, 9), (4, 7)]) == "sources of 4 and 5 tokens; targets of 7 and 9 tokens"
    assert described_lengths([(5, 9), (5, 7)]).endswith("; the data have no two pairs that differ in both")


def test_dev_pairs(data_bin):
    dev = make_student(data_bin, "fconv").dev
    first, second = dev_pairs(dev, 2)
    assert first == dev.teaching[0] and second in dev.teaching
    assert dev.source_length(first) != dev.source_length(second) and len(dev.target(first)) != len(dev.target(second))
