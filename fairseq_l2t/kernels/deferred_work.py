"""Work of a gradient node that the node it belongs to finishes, in the same backward pass.

A double backward goes through a node twice: through its gradient, whose second-order terms reach its inputs by a
linear sweep back, and through itself, by the same sweep with other terms. One sweep does for both where the first node
leaves its terms here and the second takes them. The gradient node must take an output of the other as an input, so
that autograd runs it first.
"""

from __future__ import annotations

from typing import Any

import torch

__all__ = ["DeferredWork"]


class DeferredWork:
    """At most one piece of work, good for the backward pass it was left in."""

    def __init__(self) -> None:
        self._work: Any = None
        self._backward_pass = -1

    def leave(self, work: Any) -> bool:
        """Leave ``work``; False, and nothing happens, if this pass has left some already."""
        current = torch._C._current_graph_task_id()
        if self._work is not None and self._backward_pass == current:
            return False
        self._work, self._backward_pass = work, current
        return True

    def take(self) -> Any:
        """Return the work left in this pass, or None; it is gone then.

        Raises:
            RuntimeError: derivatives of this pass are recorded, of which the work knows nothing.
        """
        work, self._work = self._work, None
        if work is None or self._backward_pass != torch._C._current_graph_task_id():
            return None
        if torch.is_grad_enabled():
            raise RuntimeError("a fused node was differentiated three times; it has two derivatives")
        return work
