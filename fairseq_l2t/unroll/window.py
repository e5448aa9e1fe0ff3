"""A window of updates kept within a `MemoryPlan`: recorded while the student moves on, visited again backwards."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from fairseq_l2t.loss.teacher import Teacher
from fairseq_l2t.unroll.gradients import Graph, MeasuredGradient, Wanted, bytes_of_graph, student_gradient
from fairseq_l2t.unroll.in_place_updates import apply_in_place
from fairseq_l2t.unroll.memory.packing import Packer, bytes_within
from fairseq_l2t.unroll.memory.plan import Layout, MemoryPlan, layout_for
from fairseq_l2t.unroll.memory.stores import LARGE_BLOCK, VectorStore
from fairseq_l2t.unroll.steps import Revisit, Step
from fairseq_l2t.unroll.student import Batch, Student

__all__ = ["Window"]

_BETWEEN = 32
"""Updates, made or gone back through, between two calls of `MemoryPlan.give_back`."""

_LITTLE = 0.25
"""Share of a budget that leaves room for any graph that fits beside a student at all."""

State = tuple[Tensor, tuple[Tensor, ...]]
"""Parameters omega (n,) and optimizer state before an update."""


@dataclass
class _Kept:
    """What is held of one update: ``step`` without vectors, coefficients and state, its batch packed, and handles.

    The state s_t is kept as plain numbers: small tensors between large ones make holes (`unroll.memory.packing`).
    """

    step: Step
    state: tuple[float, ...] | None
    gradient: object | None = None
    graphs: list[Graph] | None = None
    of_coefficients: Tensor | None = None
    notes: Any = None


class Window:
    """The updates of one unroll, as `unroll.trajectory.Trajectory` but within a memory plan.

    It can be swept back through as often as one likes; graphs serve the first sweep only. The teacher must not move in
    between: coefficients are computed from the states again.

    Args:
        student, teacher: that make the updates.
        steps: how many will be recorded.
        plan: the memory they may take.
    """

    def __init__(self, student: Student, teacher: Teacher, steps: int, plan: MemoryPlan) -> None:
        self.student, self.teacher, self._plan, self._length = student, teacher, plan, steps
        self._store: VectorStore = plan.make_store()
        self._batches = Packer(LARGE_BLOCK)
        self._kept: list[_Kept] = []
        self._states: dict[int, Any] = {}
        self._layout: Layout | None = None
        self._next_snapshot = 0
        self.recomputed = 0
        """Student updates that were made again to get back to a state, by the sweeps so far."""

    @property
    def layout(self) -> Layout:
        """How the window is kept; known from the first update on."""
        if self._layout is None:
            raise ValueError("window: no update recorded yet")
        return self._layout

    @property
    def last_coefficients(self) -> Tensor | None:
        """Coefficients (entries,) of the last update; None under plain cross-entropy."""
        return self._coefficients(self._state_of(self._kept[-1]))

    # --- recording --------------------------------------------------------------------------------------------

    def before_update(self, batch: Batch, coefficients: Tensor | None) -> Wanted:
        """Keep the student's state if this update begins a block; return what is wanted of it."""
        index = len(self._kept)
        if self._layout is None:
            self._layout = self._fitted(batch, coefficients)
            self._batches = Packer(min(LARGE_BLOCK, max(1, self._length * bytes_within(batch))))
        layout = self._layout
        if index == self._next_snapshot:
            self._keep_state(index, (self.student.omega, self.student.buffers))
            self._next_snapshot += layout.block or self._advance(index)
        if index >= layout.steps - layout.graphs:
            return Wanted.GRAPHS
        return Wanted.FOR_DIFFERENCES if self._plan.for_differences and layout.keeps_gradients else Wanted.VECTOR

    def after_update(self, step: Step, gradient: MeasuredGradient) -> None:
        """Keep what is needed of the update that was made."""
        # Coefficients are entries numbers an update, and follow from the state.
        state = None if step.state is None else tuple(step.state.tolist())
        batch = self._batches.pack(step.batch)
        kept = _Kept(replace(step, batch=batch, state=None, coefficients=None), state)
        if self.layout.keeps_gradients:
            kept.gradient = self._store.put((gradient.vector,), owned=True)
        kept.graphs, kept.of_coefficients, kept.notes = gradient.graphs, gradient.of_coefficients, gradient.notes
        self._kept.append(kept)
        if len(self._kept) % _BETWEEN == 0:
            self._plan.give_back()

    def _advance(self, index: int) -> int:
        """Return how far the next snapshot is from the one just taken.

        The state before the last update is kept beside the slots: the sweep begins with it.
        """
        left = self.layout.steps - index
        return self._plan.split(left, self.layout.slots - len(self._states) + 1) if left > 1 else left

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
        if not plan.keep_graphs and self._needs_little(data):
            return fitted(None, 0)
        graph = bytes_of_graph(student, batch, coefficients, student.update)
        return fitted(plan.budget, graph)

    def _needs_little(self, data: int) -> bool:
        """Whether the gradients of all updates take so little of the budget that no graph need be measured."""
        vector, length = self.student.omega.nbytes, self._length
        vectors = length + 5 * math.sqrt(length) * (1 + len(self.student.buffers))
        return _LITTLE * self._plan.budget > vectors * vector + length * data + self._plan.reserve

    def _keep_state(self, index: int, state: State) -> None:
        self._states[index] = self._store.put((state[0], *state[1]))

    # --- going back -------------------------------------------------------------------------------------------

    def backwards(self) -> Iterator[Revisit]:
        """Yield the updates, last first; the student's parameters are moved about meanwhile."""
        self._plan.give_back()
        for revisit in self._by_blocks() if self.layout.keeps_gradients else self._by_snapshots():
            if revisit.step.update % _BETWEEN == 0:
                self._plan.give_back()
            yield revisit

    def _by_blocks(self) -> Iterator[Revisit]:
        for first in reversed(range(0, len(self._kept), self.layout.block)):
            block = self._kept[first : first + self.layout.block]
            states = [self._state(first)]
            for kept in block[:-1]:
                states.append(self._moved(states[-1], kept, self._gradient(kept)))
            while states:
                kept, graphs = block[len(states) - 1], block[len(states) - 1].graphs
                kept.graphs = None
                step = self._step(kept, states.pop())
                yield Revisit(step, self._gradient(kept), graphs, kept.of_coefficients, kept.notes)

    def _by_snapshots(self) -> Iterator[Revisit]:
        standing = sorted(self._states)
        for last in reversed(range(len(self._kept))):
            base = standing[-1]
            state = self._state(base)
            while base < last:
                free = self.layout.slots - len(standing)
                target = base + self._plan.split(last + 1 - base, free + 1)
                state = self._again(state, self._kept[base:target])
                base = target
                if base < last:
                    self._keep_state(base, state)
                    standing.append(base)
            yield Revisit(self._step(self._kept[last], state))
            # The first state stays: everything can be made from it, should there be another sweep.
            if standing[-1] == last > 0:
                self._store.drop(self._states.pop(standing.pop()))

    def _again(self, state: State, updates: list[_Kept]) -> State:
        """Return the state after ``updates``, whose gradients have to be computed again."""
        omega, buffers = state[0].clone(), tuple(buffer.clone() for buffer in state[1])
        for kept in updates:
            step = kept.step
            self.student.set_omega(omega)
            batch, coefficients = self._batches.unpack(step.batch), self._coefficients(self._state_of(kept))
            gradient = student_gradient(self.student, batch, coefficients, step.update)
            self._move(omega, buffers, kept, gradient)
        self.recomputed += len(updates)
        return omega, buffers

    def _moved(self, state: State, kept: _Kept, gradient: Tensor) -> State:
        omega, buffers = state[0].clone(), tuple(buffer.clone() for buffer in state[1])
        self._move(omega, buffers, kept, gradient)
        return omega, buffers

    def _move(self, omega: Tensor, buffers: tuple[Tensor, ...], kept: _Kept, gradient: Tensor) -> None:
        apply_in_place(self.student.rule, omega, buffers, self.student.clipping.apply(gradient), kept.step.size)

    def _state(self, index: int) -> State:
        omega, *buffers = self._store.get(self._states[index])
        return omega, tuple(buffers)

    def _gradient(self, kept: _Kept) -> Tensor:
        return self._store.get(kept.gradient)[0]

    def _state_of(self, kept: _Kept) -> Tensor | None:
        """Return s_t (features,) as the student's own numbers, which come back to the bit."""
        omega = self.student.omega
        return None if kept.state is None else torch.tensor(kept.state, dtype=omega.dtype, device=omega.device)

    def _coefficients(self, state: Tensor | None) -> Tensor | None:
        if state is None:
            return None
        with torch.no_grad():
            return self.teacher(state)

    def _step(self, kept: _Kept, vectors: State) -> Step:
        state = self._state_of(kept)
        return replace(
            kept.step,
            omega=vectors[0],
            buffers=vectors[1],
            batch=self._batches.unpack(kept.step.batch),
            state=state,
            coefficients=self._coefficients(state),
        )
