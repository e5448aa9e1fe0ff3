from functools import cache

import pytest

from fairseq_l2t.testing.binomial_optimum import binomial_optimum


@cache
def fewest_evaluations(steps, snapshots):
    if steps == 1:
        return 0
    if snapshots == 1:
        return steps * (steps - 1) // 2
    return min(
        first + fewest_evaluations(steps - first, snapshots - 1) + fewest_evaluations(first, snapshots)
        for first in range(1, steps)
    )


def test_the_formula_is_the_fewest_over_all_first_snapshots():
    for steps in range(1, 40):
        for snapshots in range(1, 12):
            assert binomial_optimum(steps, snapshots) == fewest_evaluations(steps, snapshots) - (steps - 1)
    assert binomial_optimum(100, 100) == 0 < binomial_optimum(100, 98)


def test_no_snapshot_is_refused():
    with pytest.raises(ValueError, match="snapshots 0"):
        binomial_optimum(3, 0)
