"""A fairseq student for the doctor's checks: the same student, with updates small enough for finite differences."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from fairseq import utils
from torch import Tensor

from fairseq_l2t.loss.student_state import StudentState
from fairseq_l2t.plugin.doctor.padded_pairs import pairs_of_different_lengths
from fairseq_l2t.plugin.student.fairseq_student import FairseqStudent
from fairseq_l2t.unroll.flat_parameters import FlatParameters
from fairseq_l2t.unroll.gradients import student_gradient
from fairseq_l2t.unroll.student import Batch, BatchLoss
from fairseq_l2t.unroll.update_rules import NAG, SGD, Clipping, StepSize, UpdateRule

__all__ = ["ExaminedStudent"]

T = TypeVar("T")


class _Delegated(Generic[T]):
    """An attribute that is read from and written to the examined student."""

    def __set_name__(self, owner: type[object], name: str) -> None:
        self._name = name

    def __get__(self, examined: ExaminedStudent, owner: type[object]) -> T:
        value: T = getattr(examined.student, self._name)
        return value

    def __set__(self, examined: ExaminedStudent, value: T) -> None:
        setattr(examined.student, self._name, value)


class ExaminedStudent:
    """A `unroll.student.Student` with the updates of a fairseq student, except for three differences.

    Each update uses a few pairs, of different lengths: one of the real batch, and one that makes padding necessary
    (`padded_pairs`). It always uses the teacher, because
    cross-entropy at the start of a life would leave the coefficients out of the check. The learning rate is fixed,
    because the first rates of a warm-up are too small for finite differences.

    Args:
        student: the fairseq student, which is trained by these updates.
        pairs: number of pairs of an update.
        learning_rate: learning rate of all updates.
    """

    omega = _Delegated[Tensor]()
    buffers = _Delegated[tuple[Tensor, ...]]()
    update = _Delegated[int]()
    parameters = _Delegated[FlatParameters]()
    rule = _Delegated[UpdateRule]()
    clipping = _Delegated[Clipping]()
    state = _Delegated[StudentState]()
    coefficient_count = _Delegated[int]()
    gradient_scaling = _Delegated[Any]()

    def __init__(self, student: FairseqStudent, *, pairs: int, learning_rate: float) -> None:
        self.student = student
        self.cross_entropy_updates = 0
        self._pairs, self._learning_rate = pairs, learning_rate

    def next_batch(self) -> list[dict[str, Any]]:
        """Return a few pairs of different lengths, the first of them from the next update."""
        batch = self.student.next_batch()[0]["id"].tolist()
        dataset = self.student.task.dataset(self.student.options.cfg.dataset.train_subset)
        longest = utils.resolve_max_positions(self.student.task.max_positions(), self.student.model.max_positions())
        usable, _ = dataset.filter_indices_by_size(np.arange(len(dataset)), longest)
        chosen = pairs_of_different_lengths(batch, usable.tolist(), np.asarray(dataset.sizes), self._pairs)
        sample = dataset.collater([dataset[number] for number in chosen])
        return [utils.move_to_cuda(sample) if self.omega.is_cuda else sample]

    def step_size(self) -> StepSize:
        """Return the fixed learning rate."""
        return StepSize(self._learning_rate, self._learning_rate, self.update + 1)

    def settle(self) -> None:
        """Set the second moments of adam and adagrad to values as after large gradients of all parameters.

        From a state of zeros their steps depend on the sign of the gradient, which is discontinuous.
        """
        if self.rule.buffer_count and not isinstance(self.rule, SGD | NAG):
            square = student_gradient(self, self.next_batch(), None, 0).square().max()
            self.buffers = (*self.buffers[:-1], torch.full_like(self.omega, float(square)))

    # --- as the student does it -------------------------------------------------------------------------------

    def losses(self, batch: Batch, coefficients: Tensor | None, *, measure: bool) -> Iterator[BatchLoss]:
        """See `FairseqStudent.losses`."""
        return self.student.losses(batch, coefficients, measure=measure)

    def sample_size(self, batch: Batch) -> float:
        """See `FairseqStudent.sample_size`."""
        return self.student.sample_size(batch)

    def set_omega(self, omega: Tensor) -> None:
        """See `FairseqStudent.set_omega`."""
        self.student.set_omega(omega)

    def finish_update(self, omega: Tensor, buffers: tuple[Tensor, ...]) -> None:
        """See `FairseqStudent.finish_update`."""
        self.student.finish_update(omega, buffers)

    def replay(self, update: int) -> AbstractContextManager[None]:
        """See `FairseqStudent.replay`."""
        return self.student.replay(update)

    def second_derivatives(self) -> AbstractContextManager[None]:
        """See `FairseqStudent.second_derivatives`."""
        return self.student.second_derivatives()
