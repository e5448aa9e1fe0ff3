"""A window of updates under a `MemoryPlan`: recorded during the unroll, visited backwards by the sweep."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fairseq_l2t.loss.teacher import Teacher
from fairseq_l2t.unroll.gradients import GradientKind, Graph, MeasuredGradient, bytes_of_graph, student_gradient
from fairseq_l2t.unroll.in_place_updates import apply_in_place
from fairseq_l2t.unroll.memory.packing import Packer, bytes_within
from fairseq_l2t.unroll.memory.plan import Layout, MemoryPlan, layout_for
from fairseq_l2t.unroll.memory.stores import LARGE_BLOCK_BYTES, VectorStore
from fairseq_l2t.unroll.step_records import Revisit, Step
from fairseq_l2t.unroll.student import Batch, Student
from fairseq_l2t.unroll.update_rules import Buffers

__all__ = ["Window"]

UPDATES_PER_GIVE_BACK = 32
"""Updates, forwards or backwards, between two calls of `MemoryPlan.give_back`."""

LITTLE_BUDGET_SHARE = 0.25
"""Share of a budget for the gradients that leaves room for any graph that fits into memory with the student."""


class Snapshot(NamedTuple):
    """Parameters omega (n,) and optimizer state, vectors (n,), before an update."""

    omega: Tensor
    buffers: Buffers


@dataclass
class _SavedUpdate:
    """The saved data of one update.

    Args:
        step: the update without vectors, coefficients and state; its batch is packed.
        state_values: the student's s_t as plain numbers, because small tensors between large ones leave holes in the
            heap (`unroll.memory.packing`); None under plain cross-entropy.
        gradient: handle of the gradient in the store.
        graphs, of_coefficients, notes: see `MeasuredGradient`.
    """

    step: Step
    state_values: tuple[float, ...] | None
    gradient: Any = None
    graphs: list[Graph] | None = None
    of_coefficients: Tensor | None = None
    notes: Any = None


class Window:
    """The updates of one unroll, as in `unroll.trajectory.Trajectory` but under a memory plan.

    Any number of sweeps is possible; saved graphs serve the first one only. The teacher must not change before the
    sweep, because its coefficients are computed from the states again.

    Args:
        student, teacher: as in `unroll.trajectory.unroll`.
        steps: number of updates.
        plan: memory limit.
    """

    def __init__(self, student: Student, teacher: Teacher, steps: int, plan: MemoryPlan) -> None:
        self.student, self.teacher, self._plan, self._length = student, teacher, plan, steps
        # Any: only the store itself reads its handles.
        self._store: VectorStore[Any] = plan.make_store()
        self._batches = Packer(LARGE_BLOCK_BYTES)
        self._saved: list[_SavedUpdate] = []
        self._snapshots: dict[int, Any] = {}
        self._layout: Layout | None = None
        self._next_snapshot = 0
        self.recomputed = 0
        """Number of student updates that the sweeps so far have made again."""

    @property
    def layout(self) -> Layout:
        """Layout of the window; known from the first update on."""
        if self._layout is None:
            raise ValueError("window: no update recorded yet")
        return self._layout

    @property
    def last_coefficients(self) -> Tensor | None:
        """Coefficients (entries,) of the last update; None under plain cross-entropy."""
        return self._coefficients(self._state_of(self._saved[-1]))

    # --- recording --------------------------------------------------------------------------------------------

    def before_update(self, batch: Batch, coefficients: Tensor | None) -> GradientKind:
        """Save a snapshot if this update begins a block; return the kind of its gradient."""
        index = len(self._saved)
        if self._layout is None:
            self._layout = self._fitted(batch, coefficients)
            self._batches = Packer(min(LARGE_BLOCK_BYTES, max(1, self._length * bytes_within(batch))))
        layout = self._layout
        if index == self._next_snapshot:
            self._save_snapshot(index, Snapshot(self.student.omega, self.student.buffers))
            self._next_snapshot += layout.block or self._updates_to_next_snapshot(index)
        if index >= layout.steps - layout.graphs:
            return GradientKind.GRAPHS
        for_differences = self._plan.for_differences and layout.keeps_gradients
        return GradientKind.FOR_DIFFERENCES if for_differences else GradientKind.VECTOR

    def after_update(self, step: Step, gradient: MeasuredGradient) -> None:
        """Save the data of the update."""
        # Coefficients are not saved: they are as many numbers as the target vocabulary, and follow from the state.
        state_values = None if step.state is None else tuple(step.state.tolist())
        batch = self._batches.pack(step.batch)
        saved = _SavedUpdate(replace(step, batch=batch, state=None, coefficients=None), state_values)
        if self.layout.keeps_gradients:
            saved.gradient = self._store.put((gradient.vector,), owned=True)
        saved.graphs, saved.of_coefficients, saved.notes = gradient.graphs, gradient.of_coefficients, gradient.notes
        self._saved.append(saved)
        if len(self._saved) % UPDATES_PER_GIVE_BACK == 0:
            self._plan.give_back()

    def _updates_to_next_snapshot(self, index: int) -> int:
        """Return the distance from the snapshot just saved to the next one.

        The snapshot before the last update does not count among the slots: the sweep begins with it.
        """
        left = self.layout.steps - index
        return self._split(left, self.layout.slots - len(self._snapshots) + 1) if left > 1 else left

    def _split(self, updates: int, snapshots: int) -> int:
        if self._plan.split is None:
            raise ValueError("memory plan: snapshots need a schedule; make the plan with memory_plan")
        return self._plan.split(updates, snapshots)

    def _fitted(self, batch: Batch, coefficients: Tensor | None) -> Layout:
        student, plan = self.student, self._plan
        data = bytes_within([batch, coefficients if plan.for_differences else None])

        def fitted(budget: int | None, graph: int) -> Layout:
            return layout_for(
                self._length,
                vector=student.omega.nbytes,
                buffers=len(student.buffers),
                data=data,
                graph=graph,
                budget=budget,
                keep_graphs=plan.keep_graphs,
                can_recompute=plan.split is not None,
                reserve=plan.reserve if self._store.on_device else 0,
            )

        if plan.budget is None or not self._store.on_device:
            return fitted(plan.budget, 0)
        if not plan.keep_graphs and self._is_little(data, plan.budget):
            return fitted(None, 0)
        graph = bytes_of_graph(student, batch, coefficients, student.update)
        return fitted(plan.budget, graph)

    def _is_little(self, data: int, budget: int) -> bool:
        """Whether the gradients of all updates take a small part of the budget, so that no graph need be measured."""
        vector, length = self.student.omega.nbytes, self._length
        vectors = length + 5 * math.sqrt(length) * (1 + len(self.student.buffers))
        return LITTLE_BUDGET_SHARE * budget > vectors * vector + length * data + self._plan.reserve

    def _save_snapshot(self, index: int, snapshot: Snapshot) -> None:
        self._snapshots[index] = self._store.put((snapshot.omega, *snapshot.buffers))

    # --- going back -------------------------------------------------------------------------------------------

    def backwards(self) -> Iterator[Revisit]:
        """Yield the updates, last first; the student's parameters change meanwhile."""
        self._plan.give_back()
        for revisit in self._by_blocks() if self.layout.keeps_gradients else self._by_snapshots():
            if revisit.step.update % UPDATES_PER_GIVE_BACK == 0:
                self._plan.give_back()
            yield revisit

    def _by_blocks(self) -> Iterator[Revisit]:
        for first in reversed(range(0, len(self._saved), self.layout.block)):
            block = self._saved[first : first + self.layout.block]
            snapshots = [self._load_snapshot(first)]
            for saved in block[:-1]:
                snapshots.append(self._after(snapshots[-1], saved, self._gradient(saved)))
            while snapshots:
                saved, graphs = block[len(snapshots) - 1], block[len(snapshots) - 1].graphs
                saved.graphs = None
                step = self._step(saved, snapshots.pop())
                yield Revisit(step, self._gradient(saved), graphs, saved.of_coefficients, saved.notes)

    def _by_snapshots(self) -> Iterator[Revisit]:
        standing = sorted(self._snapshots)
        for last in reversed(range(len(self._saved))):
            base = standing[-1]
            snapshot = self._load_snapshot(base)
            while base < last:
                free = self.layout.slots - len(standing)
                target = base + self._split(last + 1 - base, free + 1)
                snapshot = self._made_again(snapshot, self._saved[base:target])
                base = target
                if base < last:
                    self._save_snapshot(base, snapshot)
                    standing.append(base)
            yield Revisit(self._step(self._saved[last], snapshot))
            # The first snapshot stays: another sweep can make everything from it.
            if standing[-1] == last > 0:
                self._store.drop(self._snapshots.pop(standing.pop()))

    def _made_again(self, snapshot: Snapshot, updates: list[_SavedUpdate]) -> Snapshot:
        """Return the snapshot after ``updates``, whose gradients are computed again."""
        omega, buffers = snapshot.omega.clone(), tuple(buffer.clone() for buffer in snapshot.buffers)
        for saved in updates:
            step = saved.step
            self.student.set_omega(omega)
            batch, coefficients = self._batches.unpack(step.batch), self._coefficients(self._state_of(saved))
            gradient = student_gradient(self.student, batch, coefficients, step.update)
            self._apply(omega, buffers, saved, gradient)
        self.recomputed += len(updates)
        return Snapshot(omega, buffers)

    def _after(self, snapshot: Snapshot, saved: _SavedUpdate, gradient: Tensor) -> Snapshot:
        omega, buffers = snapshot.omega.clone(), tuple(buffer.clone() for buffer in snapshot.buffers)
        self._apply(omega, buffers, saved, gradient)
        return Snapshot(omega, buffers)

    def _apply(self, omega: Tensor, buffers: Buffers, saved: _SavedUpdate, gradient: Tensor) -> None:
        apply_in_place(self.student.rule, omega, buffers, self.student.clipping.apply(gradient), saved.step.size)

    def _load_snapshot(self, index: int) -> Snapshot:
        omega, *buffers = self._store.get(self._snapshots[index])
        return Snapshot(omega, tuple(buffers))

    def _gradient(self, saved: _SavedUpdate) -> Tensor:
        return self._store.get(saved.gradient)[0]

    def _state_of(self, saved: _SavedUpdate) -> Tensor | None:
        """Return s_t (features,) in the student's dtype; plain numbers reproduce it to the bit."""
        omega, values = self.student.omega, saved.state_values
        return None if values is None else torch.tensor(values, dtype=omega.dtype, device=omega.device)

    def _coefficients(self, state: Tensor | None) -> Tensor | None:
        if state is None:
            return None
        with torch.no_grad():
            coefficients: Tensor = self.teacher(state)
        return coefficients

    def _step(self, saved: _SavedUpdate, snapshot: Snapshot) -> Step:
        state = self._state_of(saved)
        return replace(
            saved.step,
            omega=snapshot.omega,
            buffers=snapshot.buffers,
            batch=self._batches.unpack(saved.step.batch),
            state=state,
            coefficients=self._coefficients(state),
        )
