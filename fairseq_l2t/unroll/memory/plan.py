"""The memory plan of a window: a limit for the updates saved until the sweep has used them, and their layout.

Three layouts, the first two with the same bits:

- *gradients*: the gradient of every update (n numbers), and a snapshot (parameters and optimizer state) at the
  beginning of each block of about sqrt(T) updates. The sweep makes the snapshots of a block again with the update
  rule: no gradient is computed twice.
- *snapshots*: snapshots at few updates only. The sweep makes everything else again from them, in the order that needs
  the fewest gradients (binomial checkpointing: Griewank & Walther 2000, "Algorithm 799: revolve").
- *graphs*, in addition to gradients: the graphs of the last updates, as many as fit, so that the sweep need not make
  them again. These updates have another rounding than fairseq's own, because their kernels need second derivatives.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fairseq_l2t.unroll.memory.stores import DeviceStore, VectorStore

__all__ = ["GRAPH_SIZE_MARGIN", "LOST_BUDGET_SHARE", "Layout", "MemoryPlan", "layout_for"]

GRAPH_SIZE_MARGIN = 2.5
"""Reserved size of a graph, relative to the one that is measured, the first of a window. Batches differ, and a
backward pass has temporaries in addition to the graph. Graphs of one Transformer's batches of 700 tokens took 17 to
35 MiB."""

LOST_BUDGET_SHARE = 0.05
"""Share of a budget that is lost between blocks of memory. A window of 2,000 updates whose vectors, batches and graphs
came to 480 MiB took 516 MiB of resident memory (Linux, glibc)."""


@dataclass(frozen=True)
class MemoryPlan:
    """Memory limit of a window, and the place of its saved updates.

    Args:
        budget: bytes for everything that is saved between unroll and sweep. On the student's device it also covers the
            measure on dev and, after it, the sweep's own vectors with the graph of one update. None: no limit, the
            gradients of all updates.
        split: ``(updates, snapshots) -> updates to the next snapshot`` of an optimal binomial schedule. Required where
            a budget may be too small for the gradients (`unroll.memory.budget.memory_plan` supplies it).
        keep_graphs: spend the rest of the budget on graphs.
        make_store: makes the store of a window.
        for_differences: save d loss / d Phi of every update with its gradient, for `unroll.difference_products`.
        reserve: bytes of the budget for the measure on dev (`unroll.memory.peak.peak_bytes`).
        give_back: returns freed memory to the operating system; called at intervals.

    Raises:
        ValueError: graphs without a budget.
    """

    budget: int | None = None
    split: Callable[[int, int], int] | None = None
    keep_graphs: bool = False
    # Any: only the store itself reads its handles.
    make_store: Callable[[], VectorStore[Any]] = DeviceStore
    for_differences: bool = False
    reserve: int = 0
    give_back: Callable[[], object] = lambda: None

    def __post_init__(self) -> None:
        if self.keep_graphs and self.budget is None:
            raise ValueError("--keep-graphs: needs a --memory-budget, which limits the memory of the graphs")


@dataclass(frozen=True)
class Layout:
    """The layout of a window of T updates.

    Args:
        steps: T.
        block: updates between two snapshots under *gradients*; 0 under *snapshots*.
        slots: maximum number of snapshots at a time under *snapshots*.
        graphs: number of last updates whose graph is saved.
    """

    steps: int
    block: int
    slots: int = 0
    graphs: int = 0

    @property
    def keeps_gradients(self) -> bool:
        """Whether the gradient of every update is saved, so that none is computed twice."""
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
        buffers: number of vectors of optimizer state.
        data: bytes saved of every update in addition to vectors: its batch, and the extra data of differences.
        graph: bytes of the graph of one update.
        budget, keep_graphs: see `MemoryPlan`.
        can_recompute: whether the plan has a schedule for snapshots.
        reserve: see `MemoryPlan`.

    Raises:
        ValueError: the budget is too small for any layout; the message gives the smallest one that is enough.
    """
    snapshot = (1 + buffers) * vector
    block = max(1, round(math.sqrt(steps)))
    gradients = steps * vector + (-(-steps // block) + block) * snapshot
    if budget is None:
        return Layout(steps, block)

    def fixed_with(margin: float) -> int:
        # Vectors of the sweep: cotangents of parameters, of buffers and of the gradient, the vector pulled back,
        # omega_T, the snapshot before an update, and the snapshot from which that one is made.
        return steps * data + max(3 * snapshot + 6 * vector + round(margin * graph), reserve)

    usable = int(budget * (1 - LOST_BUDGET_SHARE))
    fixed = fixed_with(GRAPH_SIZE_MARGIN)
    left = usable - fixed - gradients
    if left >= 0:
        return Layout(steps, block, graphs=min(steps, left // graph) if keep_graphs and graph else 0)
    least = fixed_with(1.0) + (snapshot if can_recompute else gradients)
    if usable < least:
        raise ValueError(
            f"--memory-budget: {_with_unit(budget)}; a window of {steps} updates of this student takes at least "
            f"{_mebibytes(math.ceil(least / (1 - LOST_BUDGET_SHARE)))}"
        )
    if not can_recompute:
        return Layout(steps, block)
    # Below the margin: one snapshot. It may be enough, and no layout takes less.
    return Layout(steps, 0, slots=min(max(1, (usable - fixed) // snapshot), steps))


def _with_unit(size: int) -> str:
    for unit, name in ((2**30, "G"), (2**20, "M"), (2**10, "K")):
        if size >= unit:
            return f"{size / unit:.4g}{name}"
    return str(size)


def _mebibytes(size: int) -> str:
    return f"{-(-size // 2**20)}M"
