"""Work that a gradient node leaves to its forward node in the same backward pass.

A double backward passes a forward node twice: first its gradient node, whose second-order terms reach the inputs by a
linear sweep back, then the node itself, by the same sweep with other terms. One sweep is enough for both if the first
leaves its terms here and the second takes them. The gradient node must have an output of the forward node as an input,
so that autograd runs it first.
"""

from __future__ import annotations

from typing import Generic, TypeVar

import torch

__all__ = ["DeferredWork"]

Work = TypeVar("Work")


class DeferredWork(Generic[Work]):
    """At most one piece of work, valid during the backward pass in which it was left."""

    def __init__(self) -> None:
        self._work: Work | None = None
        self._backward_pass = -1

    def leave(self, work: Work) -> bool:
        """Store ``work`` and return True; return False, without a change, if this pass has stored work already."""
        current = torch._C._current_graph_task_id()
        if self._work is not None and self._backward_pass == current:
            return False
        self._work, self._backward_pass = work, current
        return True

    def take(self) -> Work | None:
        """Remove and return the work stored in this pass, or None.

        Raises:
            RuntimeError: derivatives of this pass are recorded; the work does not support them.
        """
        work, self._work = self._work, None
        if work is None or self._backward_pass != torch._C._current_graph_task_id():
            return None
        if torch.is_grad_enabled():
            raise RuntimeError("a fused node was differentiated three times; it has two derivatives")
        return work
