"""A recurrent decoder with input feeding and attention as one node, with hand-written gradient and second gradient.

The steps of a decoder depend on each other through attention and input feeding, so that no layer can process the whole
sequence at once. Only a few small products depend on the step before (`kernels.lstm_cells`, `kernels.attention`).
`kernels.lstm` explains the second gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fairseq_l2t.kernels.attention import Attention, AttentionGradients, AttentionSecondOrder, AttentionTangents
from fairseq_l2t.kernels.deferred_work import DeferredWork
from fairseq_l2t.kernels.lstm_cells import CellGradients, Cells, CellSecondOrder, CellTangents

__all__ = ["fused_decoder"]


@dataclass(frozen=True)
class _Inputs:
    """The inputs of the node, or their directions or gradients.

    Args:
        projected: (steps, batch, 4 width).
        hidden, cell: (layers, batch, width).
        attention: K, V, W, or empty.
        weights: (4 width, 2 width) of each layer.
        biases: (4 width,) of each layer except the first.
    """

    projected: Tensor
    hidden: Tensor
    cell: Tensor
    attention: Sequence[Tensor]
    weights: Sequence[Tensor]
    biases: Sequence[Tensor]

    @classmethod
    def of(cls, tensors: Sequence[Tensor], layers: int) -> _Inputs:
        """Return the inputs in the order of `flat`."""
        projected, hidden, cell, *rest = tensors
        split = len(rest) - (2 * layers - 1)
        return cls(projected, hidden, cell, rest[:split], rest[split : split + layers], rest[split + layers :])

    def flat(self) -> tuple[Tensor, ...]:
        """Return all as one tuple."""
        return (self.projected, self.hidden, self.cell, *self.attention, *self.weights, *self.biases)


class _Steps:
    """The forward pass of all steps, with its arrays.

    ``inputs`` of a layer (steps + 1, batch, 2 width): the input from below, or the output fed back, followed by the
    state before.
    """

    def __init__(self, given: _Inputs, bias: Tensor | None, masks: Sequence[Sequence[Tensor]] | None) -> None:
        length, batch, _ = given.projected.shape
        self.layers, _, self.width = given.hidden.shape
        self.deferred: DeferredWork[_Second] = DeferredWork()
        self.length, self.masks, self.weights = length, masks, [weight.detach() for weight in given.weights]
        self.cells = [Cells([batch] * length, self.width, given.projected) for _ in range(self.layers)]
        self.inputs = [_with_states(length, hidden) for hidden in given.hidden]
        self.attention: Attention | None = None
        if given.attention and bias is not None:
            keys, values, weight = given.attention
            self.attention = Attention(length, keys, values, bias, weight)
        states = [cell.clone() for cell in given.cell]
        transposed = [weight.t() for weight in given.weights]
        for k in range(length):
            for layer, inputs in enumerate(self.inputs):
                base = given.biases[layer - 1] if layer else given.projected[k]
                hidden = inputs[k + 1, :, self.width :]
                self.cells[layer].step(k, torch.addmm(base, inputs[k], transposed[layer]), states[layer], hidden)
                if layer < self.layers - 1:
                    self.pass_on(self.inputs[layer + 1][k], hidden, k, layer)
            output = hidden if self.attention is None else self.attention.step(k, hidden)
            self.pass_on(self.inputs[0][k + 1], output, k, self.layers)
        if self.attention is not None:
            self.attention.finish()

    def kept(self) -> tuple[Tensor, ...]:
        """Return all tensors held here except the inputs of the node."""
        masks = [mask for places in self.masks or () for mask in places]
        parts: list[Cells | Attention] = [*self.cells, *([] if self.attention is None else [self.attention])]
        return (*self.inputs, *masks, *(tensor for part in parts for tensor in part.kept()))

    def pass_on(self, target: Tensor, value: Tensor, k: int, place: int) -> None:
        """Write ``value`` (batch, width), with the dropout of that place, into the first half of ``target``."""
        target = target[:, : self.width]
        if self.masks is None:
            target.copy_(value)
        else:
            torch.mul(value, self.masks[k][place], out=target)

    def masked(self, gradient: Tensor, k: int, place: int) -> Tensor:
        """Return the cotangent before the dropout of that place for ``gradient`` (batch, width) after it."""
        return gradient if self.masks is None else gradient * self.masks[k][place]

    def top(self, inputs: Sequence[Tensor]) -> Tensor:
        """Return the states (steps, batch, width) of the last layer, given the inputs of all layers."""
        return inputs[-1][1:, :, self.width :]

    def backwards(
        self,
        d_outputs: Tensor | None,
        cells: Sequence[CellGradients | CellSecondOrder],
        attention: AttentionGradients | AttentionSecondOrder | None,
        known: Sequence[Tensor] | None,
    ) -> tuple[Tensor, Tensor]:
        """Go back through the steps; return the cotangents of the first states, (layers, batch, width) each.

        Args:
            d_outputs: cotangents of the outputs (steps, batch, width); None: zeros.
            cells, attention: of each layer, and of the attention, first or second order.
            known: additional cotangents of ``inputs`` of each layer, (steps, batch, 2 width); None: zeros.
        """
        width, top = self.width, self.layers - 1
        like = self.cells[0].before
        zeros = like.new_zeros(self.layers, self.inputs[0].shape[1], width)
        d_hidden, d_cell, d_fed = list(zeros), list(zeros.clone()), zeros[0]
        for k in reversed(range(self.length)):
            d_output = d_fed if d_outputs is None else d_outputs[k] + d_fed
            d_output = self.masked(d_output, k, self.layers)
            from_above = d_output if attention is None else attention.step(k, d_output)
            for layer in reversed(range(self.layers)):
                total = d_hidden[layer] + (from_above if layer == top else self.masked(from_above, k, layer))
                d_preactivation = cells[layer].step(k, total, d_cell[layer])
                if known is None:
                    d_inputs = torch.mm(d_preactivation, self.weights[layer])
                else:
                    d_inputs = torch.addmm(known[layer][k], d_preactivation, self.weights[layer])
                from_above, d_hidden[layer] = d_inputs[:, :width], d_inputs[:, width:]
            d_fed = from_above
        return torch.stack(d_hidden), torch.stack(d_cell)


class _Decoder(torch.autograd.Function):
    """See `fused_decoder`."""

    @staticmethod
    def forward(
        ctx: Any, bias: Tensor | None, masks: Sequence[Sequence[Tensor]] | None, layers: int, *tensors: Tensor
    ) -> Tensor:
        given = _Inputs.of(tensors, layers)
        ctx.steps = _Steps(given, bias, masks)
        outputs: Tensor = ctx.steps.inputs[0][1:, :, : ctx.steps.width].clone()
        # Autograd also saves the other arrays, so that hooks that measure a graph count them.
        ctx.count = len(tensors)
        ctx.save_for_backward(outputs, *tensors, *ctx.steps.kept())
        return outputs

    @staticmethod
    def backward(ctx: Any, d_outputs: Tensor) -> tuple[Tensor | None, ...]:
        outputs, *tensors = ctx.saved_tensors[: 1 + ctx.count]
        second = ctx.steps.deferred.take()
        if second is not None:
            return (None, None, None, *second.finish(d_outputs))
        return (None, None, None, *_decoder_gradient(ctx.steps, outputs, d_outputs, *tensors))


class _DecoderGradient(torch.autograd.Function):
    """The gradient of `_Decoder` as a function of the cotangent and the inputs.

    ``outputs`` only makes this node depend on `_Decoder`.
    """

    @staticmethod
    def forward(ctx: Any, steps: _Steps, outputs: Tensor, d_outputs: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        cells = [CellGradients(cell) for cell in steps.cells]
        attention = None if steps.attention is None else AttentionGradients(steps.attention)
        d_states = steps.backwards(d_outputs, cells, attention, None)
        ctx.steps, ctx.gradients, ctx.count = steps, (cells, attention), len(tensors)
        parts: list[CellGradients | AttentionGradients] = [*cells, *([] if attention is None else [attention])]
        ctx.save_for_backward(*steps.kept(), *(tensor for part in parts for tensor in part.kept()))
        flat = [cell.preactivation for cell in cells]
        return _Inputs(
            flat[0].view(steps.length, -1, flat[0].shape[1]).clone(),
            *d_states,
            () if attention is None else attention.of_inputs(steps.top(steps.inputs)),
            [d.t() @ _rows(inputs) for d, inputs in zip(flat, steps.inputs, strict=True)],
            [d.sum(0) for d in flat[1:]],
        ).flat()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *directions: Tensor) -> tuple[Tensor | None, ...]:
        cells, attention = ctx.gradients
        second = _Second(ctx.steps, cells, attention, _Inputs.of(directions, ctx.steps.layers))
        input_cotangents: tuple[Tensor | None, ...] = (None,) * ctx.count
        if not ctx.steps.deferred.leave(second):
            input_cotangents = second.finish(None)
        return (None, None, second.outputs, *input_cotangents)


class _Second:
    """The second gradient: ``outputs`` for the cotangent, and `finish` for the inputs."""

    def __init__(
        self, steps: _Steps, gradients: list[CellGradients], attention: AttentionGradients | None, given: _Inputs
    ) -> None:
        self._steps, self._gradients = steps, gradients
        self._inputs, cells, moved_attention = _tangents(steps, given)
        self.outputs = self._inputs[0][1:, :, : steps.width].clone()
        self._cells = [CellSecondOrder(*pair) for pair in zip(cells, gradients, strict=True)]
        self._attention: AttentionSecondOrder | None = None
        if attention is not None and moved_attention is not None:
            self._attention = AttentionSecondOrder(moved_attention, attention)
        self._known = [
            (d.preactivation @ weight).view(steps.length, -1, 2 * steps.width)
            for d, weight in zip(gradients, given.weights, strict=True)
        ]

    def finish(self, d_outputs: Tensor | None) -> tuple[Tensor, ...]:
        """Return the cotangents of the inputs, including those due to a cotangent of the decoder itself.

        ``d_outputs``: that cotangent (steps, batch, width); None: zeros.
        """
        steps, attention = self._steps, self._attention
        d_states = steps.backwards(d_outputs, self._cells, attention, self._known)
        flat = [cell.preactivation for cell in self._cells]
        tops = steps.top(steps.inputs), steps.top(self._inputs)
        return _Inputs(
            flat[0].view(steps.length, -1, flat[0].shape[1]),
            *d_states,
            () if attention is None else attention.of_inputs(*tops),
            [
                (d.t() @ _rows(before)).addmm_(first.preactivation.t(), _rows(moved))
                for d, before, first, moved in zip(flat, steps.inputs, self._gradients, self._inputs, strict=True)
            ],
            [d.sum(0) for d in flat[1:]],
        ).flat()


def _tangents(steps: _Steps, given: _Inputs) -> tuple[list[Tensor], list[CellTangents], AttentionTangents | None]:
    """Return the tangents of the inputs of all layers, of the cells and of the attention, along ``given``."""
    cells = [CellTangents(cell) for cell in steps.cells]
    inputs = [_with_states(steps.length, hidden) for hidden in given.hidden]
    attention = None
    if steps.attention is not None:
        keys, values, weight = given.attention
        attention = AttentionTangents(steps.attention, steps.top(steps.inputs), keys, values, weight)
    for layer, cell in enumerate(cells):
        base = given.biases[layer - 1] if layer else _flat(given.projected)
        torch.addmm(base, _rows(steps.inputs[layer]), given.weights[layer].t(), out=_flat(cell.preactivation, 1))
    states = [cell.clone() for cell in given.cell]
    transposed = [weight.t() for weight in steps.weights]
    for k in range(steps.length):
        for layer, cell in enumerate(cells):
            hidden = inputs[layer][k + 1, :, steps.width :]
            cell.steps[k].addmm_(inputs[layer][k], transposed[layer])
            cell.step(k, states[layer], hidden)
            if layer < steps.layers - 1:
                steps.pass_on(inputs[layer + 1][k], hidden, k, layer)
        output = hidden if attention is None else attention.step(k, hidden)
        steps.pass_on(inputs[0][k + 1], output, k, steps.layers)
    return inputs, cells, attention


def _with_states(length: int, hidden: Tensor) -> Tensor:
    """Return an array for the inputs of a layer; step 0 holds zeros and the state ``hidden`` (batch, width)."""
    batch, width = hidden.shape
    inputs = hidden.new_empty(length + 1, batch, 2 * width)
    inputs[0, :, :width] = 0
    inputs[0, :, width:] = hidden
    return inputs


def _rows(inputs: Tensor) -> Tensor:
    return inputs[:-1].view(-1, inputs.shape[2])


def _flat(array: Tensor, leading: int = 2) -> Tensor:
    return array.flatten(0, leading - 1).flatten(1)


_decoder: Callable[..., Tensor] = _Decoder.apply
_decoder_gradient: Callable[..., tuple[Tensor, ...]] = _DecoderGradient.apply


def fused_decoder(
    projected: Tensor,
    hidden: Tensor,
    cell: Tensor,
    attention: tuple[Tensor, Tensor, Tensor] | None,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    *,
    score_bias: Tensor | None,
    masks: Sequence[Sequence[Tensor]] | None,
) -> Tensor:
    """Return the outputs (steps, batch, width); each is also an input of the next step.

    The result is twice differentiable in all tensors except the last two, not three times.

    Args:
        projected: terms of the first layer's gates from words and biases, (steps, batch, 4 width).
        hidden, cell: first states (layers, batch, width).
        attention: K, V (batch, source, width) and W (width, width) of `kernels.attention`, or None.
        weights: for each layer (4 width, 2 width), gates in PyTorch's order. The first half multiplies the input (in
            the first layer, the output of the step before), the second half the state.
        biases: (4 width,) for each layer except the first.
        score_bias: (batch, source), 0, or minus infinity at padding; required with ``attention``.
        masks: for each step the dropout factors (batch, width) of every layer (that of the last is not used) and of
            the output; None: no dropout.

    Raises:
        ValueError: ``attention`` without ``score_bias``.
    """
    if attention is not None and score_bias is None:
        raise ValueError("score_bias: None; expected (batch, source) with attention")
    tensors = (projected, hidden, cell, *(attention or ()), *weights, *biases)
    return _decoder(score_bias, masks, len(weights), *tensors)
