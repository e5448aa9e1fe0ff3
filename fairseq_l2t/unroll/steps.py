"""One student update: as it was made, and as the sweep finds it again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from fairseq_l2t.unroll.gradients import Graph
from fairseq_l2t.unroll.student import Batch
from fairseq_l2t.unroll.update_rules import StepSize

__all__ = ["Revisit", "Step"]


@dataclass(frozen=True)
class Step:
    """One update as it was made: everything before it, and the batch it used.

    ``state`` (features,) and ``coefficients`` (entries,) are None where the update used plain cross-entropy.
    """

    update: int
    omega: Tensor
    buffers: tuple[Tensor, ...]
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
    """An update on the way back.

    Args:
        step: as it was made.
        gradient: (n,) before clipping, where it is still known.
        graphs: of its micro-batches, where they were kept.
        gradient_of_coefficients: (entries,) d loss per target token / d Phi, where it is known.
        notes: of the student's gradient scaling, where it has one and the gradient is known.
    """

    step: Step
    gradient: Tensor | None = None
    graphs: list[Graph] | None = None
    gradient_of_coefficients: Tensor | None = None
    notes: Any = None
