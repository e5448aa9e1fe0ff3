"""Records of one student update: of the unroll, and of the sweep back."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from fairseq_l2t.unroll.gradients import Graph
from fairseq_l2t.unroll.student import Batch
from fairseq_l2t.unroll.update_rules import Buffers, StepSize

__all__ = ["Revisit", "Step"]


@dataclass(frozen=True)
class Step:
    """One update: everything before it, and its batch.

    Args:
        update: number of the update, counted from 0.
        omega: parameters (n,) before it.
        buffers: optimizer state before it, vectors (n,).
        size: learning rate.
        batch: micro-batches.
        state: s_t (features,); None under plain cross-entropy.
        coefficients: Phi_t (entries,); None under plain cross-entropy.
    """

    update: int
    omega: Tensor
    buffers: Buffers
    size: StepSize
    batch: Batch
    state: Tensor | None
    coefficients: Tensor | None

    def to(self, like: Tensor) -> Step:
        """Return the step with its vectors in the dtype and on the device of ``like``."""
        return replace(
            self,
            omega=self.omega.to(like),
            buffers=tuple(buffer.to(like) for buffer in self.buffers),
            state=None if self.state is None else self.state.to(like),
            coefficients=None if self.coefficients is None else self.coefficients.to(like),
        )


@dataclass(frozen=True)
class Revisit:
    """One update on the way back.

    Args:
        step: the update.
        gradient: its gradient (n,) before clipping, if saved.
        graphs: graphs of its micro-batches, if saved.
        gradient_of_coefficients: (entries,) d loss per target token / d Phi, if saved.
        notes: notes of the student's gradient scaling, if it has one and the gradient is saved.
    """

    step: Step
    gradient: Tensor | None = None
    graphs: list[Graph] | None = None
    gradient_of_coefficients: Tensor | None = None
    notes: Any = None
