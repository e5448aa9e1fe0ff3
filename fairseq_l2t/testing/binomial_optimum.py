"""The fewest updates that a sweep with a limited number of snapshots must make again.

Source: Griewank & Walther 2000, "Algorithm 799: revolve", equation (1).
"""

from __future__ import annotations

from math import comb

__all__ = ["binomial_optimum"]


def binomial_optimum(steps: int, snapshots: int) -> int:
    """Return the fewest updates that must be made again to go back through ``steps`` updates.

    Args:
        steps: number of updates.
        snapshots: states that can be kept at a time, the first one included.

    Griewank and Walther count the first sweep to the last update, ``steps - 1`` updates; it is made anyway and is not
    counted here.

    Raises:
        ValueError: no step or no snapshot.
    """
    if steps < 1 or snapshots < 1:
        raise ValueError(f"steps {steps}, snapshots {snapshots}; expected at least 1 of both")
    repetitions = 0
    while comb(snapshots + repetitions, snapshots) < steps:
        repetitions += 1
    evaluations = repetitions * steps - comb(snapshots + repetitions, repetitions - 1) if repetitions else 0
    return evaluations - (steps - 1)
