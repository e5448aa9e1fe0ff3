"""The memory plan of a run of ``l2t-train-teacher``: what its options and its measure on dev make of a budget."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch

from fairseq_l2t.plugin.run_options import RunOptions
from fairseq_l2t.plugin.student.fairseq_student import FairseqStudent
from fairseq_l2t.unroll.memory.budget import half_of_memory, memory_plan
from fairseq_l2t.unroll.memory.peak import peak_bytes
from fairseq_l2t.unroll.memory.plan import MemoryPlan, layout_for

__all__ = ["plan_of_run"]

logger = logging.getLogger(__name__)


def plan_of_run(options: RunOptions, student: FairseqStudent, measure: Callable[[Sequence[int]], Any]) -> MemoryPlan:
    """Return the plan.

    Args:
        options: of the run.
        student: as it was built; the same at every start of the run, so that a resumed one plans as before.
        measure: the run's measure on dev pairs, with its gradient.

    Raises:
        ValueError: a ``--memory-budget`` that no window fits in; names the least that would do.
    """
    given, host = options.student.namespace, torch.device("cpu")
    on_device = given.keep_steps_in == "device"
    budget = options.memory_budget
    if budget is None and given.keep_steps_in != "file":  # a disk is not memory: as much as the gradients take
        budget = half_of_memory(student.omega.device if on_device else host)
    reserve = 0
    if on_device and options.memory_budget is not None:  # half of memory leaves the other half
        reserve = peak_bytes(lambda: measure(_longest(student, given.dev_batch)))
        logger.info("--memory-budget: %dM of it are for the measure on dev", -(-reserve // 2**20))
    # Refused now what no window can be kept in; what the graph of an update takes, the first window finds out.
    try:
        layout_for(
            options.plan.kept_length,
            vector=student.omega.nbytes,
            buffers=len(student.buffers),
            budget=budget,
            reserve=reserve,
        )
    except ValueError as error:
        if options.memory_budget is not None:
            raise
        share = "not given: half of the memory, or of the share of it that L2T_MEMORY_SHARE says"
        raise ValueError(f"{error} ({share})") from None
    return memory_plan(
        budget,
        keep_graphs=given.keep_graphs,
        place=given.keep_steps_in,
        folder=options.folder,
        for_differences=given.hvp != "exact",
        reserve=reserve,
    )


def _longest(student: FairseqStudent, count: int) -> list[int]:
    """Return the pairs whose measure takes the most memory. A new student seldom ends what is drawn from it, either."""
    dev = student.dev
    tokens = {pair: dev.source_length(pair) + len(dev.target(pair)) for pair in dev.teaching}
    return sorted(tokens, key=tokens.__getitem__)[-count:]
