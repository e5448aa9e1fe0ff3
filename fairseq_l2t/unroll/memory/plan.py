"""How much memory the updates of a window may take until the sweep has gone back through them, and where.

Three layouts, the first two with the same bits:

- *gradients*: the gradient of every update (n numbers), and parameters with optimizer state only at the beginning of
  blocks of about sqrt(T) updates. Going back, the states of a block are made again by its update rule: no gradient is
  computed twice.
- *snapshots*: parameters and optimizer state at few updates, the rest is made again from them, in the order that needs
  the fewest gradients (binomial checkpointing: Griewank & Walther 2000, "Algorithm 799: revolve").
- *graphs*, on top of gradients: those of the last updates, as many as fit, so that the sweep need not make them again.
  These updates have another rounding than fairseq's own: their kernels must have second derivatives.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from fairseq_l2t.unroll.memory.stores import DeviceStore, VectorStore

__all__ = ["Layout", "MemoryPlan", "layout_for"]

_GRAPH_MARGIN = 2.5
"""Batches differ, and a backward pass has temporaries beside what the graph keeps. Graphs of one Transformer's batches
of 700 tokens took 17 to 35 MiB; it was the first that is measured."""

_LOST = 0.05
"""Share of a budget that is lost between blocks of memory. A window of 2,000 updates whose vectors, batches and graphs
came to 480 MiB took 516 MiB of resident memory (Linux, glibc)."""


@dataclass(frozen=True)
class MemoryPlan:
    """What the updates of a window may take.

    Args:
        budget: bytes for all that is kept between unroll and sweep and, where that is on the student's device, for what
            stands beside it: the measure on dev, and after it the sweep's own vectors with the graph of one update;
            None: as much as the gradients take.
        split: ``(updates, snapshots) -> updates to the next snapshot`` of an optimal binomial schedule; needed where a
            budget may be too small for the gradients (`unroll.memory.budget.memory_plan` gives it).
        keep_graphs: spend what is left of the budget on graphs.
        make_store: makes the store of a window.
        for_differences: keep d loss / d Phi of every update beside its gradient, for `unroll.difference_products`.
        reserve: bytes of the budget for the measure on dev (`unroll.memory.peak.peak_bytes`).
        give_back: called now and then, to return freed memory to the operating system.

    Raises:
        ValueError: graphs without a budget.
    """

    budget: int | None = None
    split: Callable[[int, int], int] | None = None
    keep_graphs: bool = False
    make_store: Callable[[], VectorStore] = DeviceStore
    for_differences: bool = False
    reserve: int = 0
    give_back: Callable[[], object] = lambda: None

    def __post_init__(self) -> None:
        if self.keep_graphs and self.budget is None:
            raise ValueError("--keep-graphs: needs a --memory-budget; graphs take as much as they are given")


@dataclass(frozen=True)
class Layout:
    """How a window of T updates is kept.

    Args:
        steps: T.
        block: updates between two states under *gradients*; 0 under *snapshots*.
        slots: snapshots that may stand at a time under *snapshots*.
        graphs: last updates whose graph is kept.
    """

    steps: int
    block: int
    slots: int = 0
    graphs: int = 0

    @property
    def keeps_gradients(self) -> bool:
        """Whether no gradient is ever computed twice."""
        return self.block > 0


def layout_for(
    steps: int,
    *,
    vector: int,
    buffers: int,
    data: int = 0,
    graph: int = 0,
    budget: int | None = None,
    keep_graphs: bool = False,
    can_recompute: bool = True,
    reserve: int = 0,
) -> Layout:
    """Return the layout of a window.

    Args:
        steps: updates T.
        vector: bytes of one vector of parameters.
        buffers: vectors of optimizer state.
        data: bytes that are kept of every update beside vectors: its batch, and what differences need.
        graph: bytes the graph of one update keeps.
        budget, keep_graphs: see `MemoryPlan`.
        can_recompute: whether there is a schedule for snapshots.
        reserve: see `MemoryPlan`.

    Raises:
        ValueError: the budget is too small for any layout; names the least that would do.
    """
    state = (1 + buffers) * vector
    block = max(1, round(math.sqrt(steps)))
    gradients = steps * vector + (-(-steps // block) + block) * state
    if budget is None:
        return Layout(steps, block)

    def fixed_with(margin: float) -> int:
        # The sweep's: cotangents of parameters and buffers, of the gradient, what is pulled back, omega_T, and the
        # state before an update, with the one it is made from.
        return steps * data + max(3 * state + 6 * vector + round(margin * graph), reserve)

    usable = int(budget * (1 - _LOST))
    fixed = fixed_with(_GRAPH_MARGIN)
    left = usable - fixed - gradients
    if left >= 0:
        return Layout(steps, block, graphs=min(steps, left // graph) if keep_graphs and graph else 0)
    least = fixed_with(1.0) + (state if can_recompute else gradients)
    if usable < least:
        raise ValueError(
            f"--memory-budget: {_as_given(budget)}; a window of {steps} updates of this student takes at least "
            f"{_mebibytes(math.ceil(least / (1 - _LOST)))}"
        )
    if not can_recompute:
        return Layout(steps, block)
    # With less than the margin, a single state: it may be enough, and nothing takes less.
    return Layout(steps, 0, slots=min(max(1, (usable - fixed) // state), steps))


def _as_given(size: int) -> str:
    for unit, name in ((2**30, "G"), (2**20, "M"), (2**10, "K")):
        if size >= unit:
            return f"{size / unit:.4g}{name}"
    return str(size)


def _mebibytes(size: int) -> str:
    return f"{-(-size // 2**20)}M"
