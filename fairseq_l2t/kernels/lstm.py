"""`torch.nn.LSTM` with a cheap second derivative: one node per layer, with hand-written gradient and second gradient.

PyTorch's double backward of an LSTM has about 25 nodes per step, and multiplies matrices for the gradient of every
weight at every step. Here a step contains only the recurrent product, and the gradient of a weight is one product over
all steps. The formulas of the cell are in `kernels.lstm_cells`.

For outputs ``y(p)`` and their cotangents u, the gradient is ``g = (dy/dp)^T u``, and with v the cotangents of g::

    v . g = u . y'    with y' the tangent of y along v,

so that the second gradient is y' (for u), and the tangent of the backward pass along v at fixed u (for p). The latter
goes back through the steps in the same way as the gradient itself; one sweep computes both (`kernels.deferred_work`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from fairseq_l2t.kernels.deferred_work import DeferredWork
from fairseq_l2t.kernels.lstm_cells import CellGradients, Cells, CellSecondOrder, CellTangents

__all__ = ["fused_lstm", "lstm_layer"]

FUSED_DTYPES = (torch.float32, torch.float64)

WEIGHTS_PER_LAYER = 4
"""Tensors of one layer and direction in PyTorch's list: two weights, two biases."""

INPUTS_PER_LAYER = 4
"""Tensor arguments of `lstm_layer`."""


class _Forward:
    """The steps of one layer and direction, in the order of the computation, with their arrays.

    ``before`` (rows, width): the states before each step.
    """

    def __init__(
        self, projected: Tensor, hidden: Tensor, cell: Tensor, weight: Tensor, sizes: Sequence[int], *, reverse: bool
    ) -> None:
        starts = [0, *accumulate(sizes)][:-1]
        order = range(len(sizes))
        self.steps = [(k, starts[k], sizes[k]) for k in (reversed(order) if reverse else order)]
        self.cells = Cells(sizes, hidden.shape[1], projected)
        self.before = projected.new_empty(len(projected), hidden.shape[1])
        self.deferred: DeferredWork[_Second] = DeferredWork()
        self.results = torch.empty_like(self.before), hidden.clone(), cell.clone()
        outputs, hidden, cell = self.results
        transposed = weight.t()
        for k, start, size in self.steps:
            past = hidden[:size]
            self.before[start : start + size] = past
            preactivation = torch.addmm(projected[start : start + size], past, transposed)
            self.cells.step(k, preactivation, cell[:size], outputs[start : start + size])
            past.copy_(outputs[start : start + size])

    def backwards(
        self,
        cells: CellGradients | CellSecondOrder,
        weight: Tensor,
        d_outputs: Tensor | None,
        states: Sequence[Tensor],
        known: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Go back through the steps; return the cotangents of the first states, (batch, width) each.

        Args:
            cells: first or second order.
            weight: hidden to gates (4 width, width).
            d_outputs: cotangents of the outputs (rows, width); None: zeros.
            states: cotangents of the last states, hidden and cell, (batch, width) each.
            known: additional cotangents (rows, width) of the states before each step; None: zeros.
        """
        d_hidden, d_cell = (state.clone() for state in states)
        for k, start, size in reversed(self.steps):
            total = d_hidden[:size]
            if d_outputs is not None:
                total.add_(d_outputs[start : start + size])
            d_preactivation = cells.step(k, total, d_cell[:size])
            if known is None:
                torch.mm(d_preactivation, weight, out=total)
            else:
                torch.addmm(known[start : start + size], d_preactivation, weight, out=total)
        return d_hidden, d_cell


class _Layer(torch.autograd.Function):
    """See `lstm_layer`."""

    @staticmethod
    def forward(
        ctx: Any, projected: Tensor, hidden: Tensor, cell: Tensor, weight: Tensor, sizes: Sequence[int], reverse: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.done = done = _Forward(projected, hidden, cell, weight, sizes, reverse=reverse)
        outputs, last_hidden, last_cell = done.results
        del done.results
        # Autograd also saves the other arrays, so that hooks that measure a graph count them.
        ctx.save_for_backward(outputs, projected, hidden, cell, weight, done.before, *done.cells.kept())
        return outputs, last_hidden, last_cell

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        outputs, *inputs = ctx.saved_tensors[: 1 + INPUTS_PER_LAYER]
        second = ctx.done.deferred.take()
        if second is not None:
            return (*second.finish(inputs[3], *cotangents), None, None)
        return (*_layer_gradient(ctx.done, outputs, *cotangents, *inputs), None, None)


class _LayerGradient(torch.autograd.Function):
    """The gradient of `_Layer` as a function of cotangents and inputs.

    ``outputs`` only makes this node depend on `_Layer`.
    """

    @staticmethod
    def forward(
        ctx: Any,
        done: _Forward,
        outputs: Tensor,
        d_outputs: Tensor,
        d_hidden: Tensor,
        d_cell: Tensor,
        projected: Tensor,
        hidden: Tensor,
        cell: Tensor,
        weight: Tensor,
    ) -> tuple[Tensor, ...]:
        gradients = CellGradients(done.cells)
        d_states = done.backwards(gradients, weight, d_outputs, (d_hidden, d_cell), None)
        ctx.done, ctx.gradients = done, gradients
        ctx.save_for_backward(weight, done.before, *gradients.kept())
        # A copy, because autograd may add to a returned tensor in place, and the saved one must not change.
        return gradients.preactivation.clone(), *d_states, gradients.preactivation.t() @ done.before

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *directions: Tensor) -> tuple[Tensor | None, ...]:
        weight = ctx.saved_tensors[0]
        second = _Second(ctx.done, ctx.gradients, weight, *directions)
        input_cotangents: tuple[Tensor | None, ...] = (None,) * INPUTS_PER_LAYER
        if not ctx.done.deferred.leave(second):
            input_cotangents = second.finish(weight, None, *map(torch.zeros_like, second.results[1:]))
        return (None, None, *second.results, *input_cotangents)


class _Second:
    """The second gradient: ``results`` for the three cotangents, and `finish` for the inputs."""

    def __init__(
        self,
        done: _Forward,
        gradients: CellGradients,
        weight: Tensor,
        v_projected: Tensor,
        v_hidden: Tensor,
        v_cell: Tensor,
        v_weight: Tensor,
    ) -> None:
        self._done, self._gradients = done, gradients
        self._moved = torch.empty_like(done.before)
        tangents, outputs = CellTangents(done.cells), torch.empty_like(done.before)
        known = torch.addmm(v_projected, done.before, v_weight.t())
        hidden, cell, transposed = v_hidden.clone(), v_cell.clone(), weight.t()
        for k, start, size in done.steps:
            past = hidden[:size]
            self._moved[start : start + size] = past
            torch.addmm(known[start : start + size], past, transposed, out=tangents.steps[k])
            tangents.step(k, cell[:size], past)
            outputs[start : start + size] = past
        self.results = outputs, hidden, cell
        self._cells = CellSecondOrder(tangents, gradients)
        self._known = gradients.preactivation @ v_weight

    def finish(self, weight: Tensor, d_outputs: Tensor | None, *states: Tensor) -> tuple[Tensor, ...]:
        """Return the cotangents of the four inputs, including those due to cotangents of the layer itself.

        Args:
            weight: hidden to gates (4 width, width).
            d_outputs: cotangents of the layer's outputs (rows, width); None: zeros.
            states: cotangents of its last states, hidden and cell, (batch, width) each.
        """
        cells, gradients = self._cells, self._gradients
        d_states = self._done.backwards(cells, weight, d_outputs, states, self._known)
        d_weight = cells.preactivation.t() @ self._done.before
        return cells.preactivation, *d_states, d_weight.addmm_(gradients.preactivation.t(), self._moved)


_layer: Callable[..., tuple[Tensor, Tensor, Tensor]] = _Layer.apply
_layer_gradient: Callable[..., tuple[Tensor, ...]] = _LayerGradient.apply


def lstm_layer(
    projected: Tensor, hidden: Tensor, cell: Tensor, weight: Tensor, sizes: Sequence[int], *, reverse: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return outputs (rows, width) and the last states (batch, width) of one layer in one direction.

    The results are twice differentiable in all tensors, not three times.

    Args:
        projected: terms of the gates from inputs and biases, (rows, 4 width), steps one after another.
        hidden, cell: first states (batch, width).
        weight: hidden to gates, (4 width, width), gates in PyTorch's order (input, forget, cell, output).
        sizes: rows of each step, at most as many as in the step before, as in a PackedSequence.
        reverse: whether to go from the last step to the first.
    """
    return _layer(projected, hidden, cell, weight, sizes, reverse)


def fused_lstm(stock: Callable[..., Any]) -> Callable[..., Any]:
    """Return a replacement for PyTorch's LSTM kernel ``torch._VF.lstm``, which is passed as ``stock``.

    The replacement is used while derivatives are recorded, in float32 and float64 and without projections; otherwise it
    calls ``stock``. Dropout between layers uses the same calls on tensors of the same shapes, so that masks are equal.
    """

    # Any: the kernel has two signatures, for packed and for padded sequences.
    def lstm(data: Tensor, second: Any, third: Any, *others: Any) -> tuple[Tensor, Tensor, Tensor]:
        is_packed = isinstance(second, Tensor)
        states, weights = (third, others[0]) if is_packed else (second, third)
        has_bias, layers, dropout, training, bidirectional = others[1:6] if is_packed else others[:5]
        directions = 2 if bidirectional else 1
        plain = has_bias and len(weights) == WEIGHTS_PER_LAYER * layers * directions
        if not (plain and torch.is_grad_enabled() and data.dtype in FUSED_DTYPES):
            result: tuple[Tensor, Tensor, Tensor] = stock(data, second, third, *others)
            return result
        dropout = dropout if training else 0.0
        if is_packed:
            return _stacked(data, second.tolist(), states, weights, directions, dropout)
        batch_first = others[5]
        data = data.transpose(0, 1) if batch_first else data
        length, batch = data.shape[:2]
        outputs, hidden, cell = _stacked(data, [batch] * length, states, weights, directions, dropout)
        return outputs.transpose(0, 1) if batch_first else outputs, hidden, cell

    return lstm


def _stacked(
    data: Tensor,
    sizes: list[int],
    states: Sequence[Tensor],
    weights: Sequence[Tensor],
    directions: int,
    dropout: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return outputs in the leading shape of ``data``, and the last hidden and cell states (layers, batch, width)."""
    hiddens, cells = [], []
    leading, layers = data.shape[:-1], len(weights) // (WEIGHTS_PER_LAYER * directions)
    for layer in range(layers):
        outputs = []
        for direction in range(directions):
            index = layer * directions + direction
            into, recurrent, bias, other_bias = weights[WEIGHTS_PER_LAYER * index : WEIGHTS_PER_LAYER * (index + 1)]
            projected = F.linear(data, into, bias + other_bias).reshape(-1, into.shape[0])
            output, hidden, cell = lstm_layer(
                projected, states[0][index], states[1][index], recurrent, sizes, reverse=direction == 1
            )
            outputs.append(output)
            hiddens.append(hidden)
            cells.append(cell)
        data = (outputs[0] if directions == 1 else torch.cat(outputs, -1)).view(*leading, -1)
        if dropout > 0 and layer < layers - 1:
            data = F.dropout(data, dropout)
    return data, torch.stack(hiddens), torch.stack(cells)
