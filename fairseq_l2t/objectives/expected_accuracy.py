"""Expected token accuracy of the reference under teacher forcing: ``mean_r p(y_r | x, y_<r)``.

The expectation of the 0-1 measure for tokens sampled from the student (Wu et al., NeurIPS 2018, section 3.3, applied
to tokens). It is exact and smooth, and costs one forward and one backward pass.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from fairseq_l2t.objectives.dev_student import Objective, ReferenceStudent, sum_over_references

__all__ = ["expected_token_accuracy"]


def expected_token_accuracy(student: ReferenceStudent, pairs: Sequence[int]) -> Objective:
    """Return the mean probability of a reference token of ``pairs`` (numbers of dev pairs), and its gradient.

    Raises:
        ValueError: no pairs.
    """
    value, tokens, gradient = sum_over_references(student, pairs, torch.exp)
    return Objective(value / tokens, gradient / tokens)
