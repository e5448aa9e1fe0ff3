"""A recurrent decoder with input feeding and attention as one node, with hand-written gradient and second gradient.

The steps of a decoder depend on each other through attention and input feeding, so that no layer can be run over the
whole sequence; but only a few small products have to wait for the step before (`kernels.lstm_cells`,
`kernels.attention`). How the second gradient is found is said in `kernels.lstm`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from fairseq_l2t.kernels.attention import Attention, AttentionGradients, AttentionSecondOrder, AttentionTangents
from fairseq_l2t.kernels.deferred_work import DeferredWork
from fairseq_l2t.kernels.lstm_cells import CellGradients, Cells, CellSecondOrder, CellTangents

__all__ = ["fused_decoder"]


@dataclass(frozen=True)
class _Inputs:
    """What the node takes, or the directions or gradients of these.

    ``projected`` (steps, batch, 4 width); ``hidden`` and ``cell`` (layers, batch, width); ``attention`` is (K, V, W)
    or nothing; ``weights`` (4 width, 2 width) of each layer and ``biases`` (4 width,) of each but the first.
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
    """All steps forward, and what they left.

    ``inputs`` of a layer (steps + 1, batch, 2 width): what comes from below, or is fed back, beside the state before.
    """

    def __init__(self, given: _Inputs, bias: Tensor | None, masks: Sequence[Sequence[Tensor]] | None) -> None:
        length, batch, _ = given.projected.shape
        self.layers, _, self.width = given.hidden.shape
        self.deferred = DeferredWork()
        self.length, self.masks, self.weights = length, masks, [weight.detach() for weight in given.weights]
        self.cells = [Cells([batch] * length, self.width, given.projected) for _ in range(self.layers)]
        self.inputs = [_with_states(length, hidden) for hidden in given.hidden]
        self.attention = Attention(length, *given.attention[:2], bias, given.attention[2]) if given.attention else None
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
        """Return all tensors held here beside the inputs of the node."""
        masks = [mask for places in self.masks or () for mask in places]
        parts = self.cells if self.attention is None else [*self.cells, self.attention]
        return (*self.inputs, *masks, *(tensor for part in parts for tensor in part.kept()))

    def pass_on(self, target: Tensor, value: Tensor, k: int, place: int) -> None:
        """Write ``value`` (batch, width) into the first half of ``target``, under the dropout of that place."""
        target = target[:, : self.width]
        if self.masks is None:
            target.copy_(value)
        else:
            torch.mul(value, self.masks[k][place], out=target)

    def masked(self, gradient: Tensor, k: int, place: int) -> Tensor:
        """Return ``gradient`` (batch, width) from behind the dropout of that place."""
        return gradient if self.masks is None else gradient * self.masks[k][place]

    def top(self, inputs: Sequence[Tensor]) -> Tensor:
        """Return the states (steps, batch, width) of the last layer, out of the inputs of all layers."""
        return inputs[-1][1:, :, self.width :]

    def backwards(self, d_outputs: Tensor | None, cells, attention, known: Sequence[Tensor] | None):
        """Run the steps back; return what reaches the first states, hidden and cell, (layers, batch, width) each.

        Args:
            d_outputs: (steps, batch, width), None for zeros.
            cells, attention: `CellGradients` of each layer and `AttentionGradients`, or both of second order.
            known: what to add to the gradient of ``inputs`` of each layer, (steps, batch, 2 width).
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
    def forward(ctx, bias, masks, layers, *tensors):
        given = _Inputs.of(tensors, layers)
        ctx.steps = _Steps(given, bias, masks)
        outputs = ctx.steps.inputs[0][1:, :, : ctx.steps.width].clone()
        # What is kept beside the inputs is shown to autograd too, so that hooks which measure a graph see it.
        ctx.count = len(tensors)
        ctx.save_for_backward(outputs, *tensors, *ctx.steps.kept())
        return outputs

    @staticmethod
    def backward(ctx, d_outputs):
        outputs, *tensors = ctx.saved_tensors[: 1 + ctx.count]
        second = ctx.steps.deferred.take()
        if second is not None:
            return (None, None, None, *second.finish(d_outputs))
        return (None, None, None, *_DecoderGradient.apply(ctx.steps, outputs, d_outputs, *tensors))


class _DecoderGradient(torch.autograd.Function):
    """The gradient of `_Decoder` as a function of the cotangent and the inputs.

    ``outputs`` does nothing but say that this node stands behind `_Decoder`.
    """

    @staticmethod
    def forward(ctx, steps, outputs, d_outputs, *tensors):
        cells = [CellGradients(cell) for cell in steps.cells]
        attention = None if steps.attention is None else AttentionGradients(steps.attention)
        d_states = steps.backwards(d_outputs, cells, attention, None)
        ctx.steps, ctx.gradients, ctx.count = steps, (cells, attention), len(tensors)
        parts = cells if attention is None else [*cells, attention]
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
    def backward(ctx, *directions):
        second = _Second(ctx.steps, *ctx.gradients, _Inputs.of(directions, ctx.steps.layers))
        reaching_inputs = (None,) * ctx.count
        if not ctx.steps.deferred.leave(second):
            reaching_inputs = second.finish(None)
        return (None, None, second.outputs, *reaching_inputs)


class _Second:
    """The second gradient: ``outputs`` for the cotangent, and `finish` for the inputs."""

    def __init__(self, steps: _Steps, gradients: list[CellGradients], attention, given: _Inputs) -> None:
        self._steps, self._gradients = steps, gradients
        self._inputs, cells, moved_attention = _moved(steps, given)
        self.outputs = self._inputs[0][1:, :, : steps.width].clone()
        self._cells = [CellSecondOrder(*pair) for pair in zip(cells, gradients, strict=True)]
        self._attention = None if attention is None else AttentionSecondOrder(moved_attention, attention)
        self._known = [
            (d.preactivation @ weight).view(steps.length, -1, 2 * steps.width)
            for d, weight in zip(gradients, given.weights, strict=True)
        ]

    def finish(self, d_outputs: Tensor | None) -> tuple[Tensor, ...]:
        """Return what reaches the inputs, together with what a cotangent of the decoder itself sends there."""
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


def _moved(steps: _Steps, given: _Inputs):
    """Return the tangents of the inputs of all layers, of the cells and of the attention, along ``given``."""
    cells = [CellTangents(cell) for cell in steps.cells]
    inputs = [_with_states(steps.length, hidden) for hidden in given.hidden]
    attention = None
    if steps.attention is not None:
        attention = AttentionTangents(steps.attention, steps.top(steps.inputs), *given.attention)
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
    """Return room for the inputs of a layer, with nothing fed back and ``hidden`` (batch, width) at the beginning."""
    batch, width = hidden.shape
    inputs = hidden.new_empty(length + 1, batch, 2 * width)
    inputs[0, :, :width] = 0
    inputs[0, :, width:] = hidden
    return inputs


def _rows(inputs: Tensor) -> Tensor:
    return inputs[:-1].view(-1, inputs.shape[2])


def _flat(array: Tensor, leading: int = 2) -> Tensor:
    return array.flatten(0, leading - 1).flatten(1)


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
    """Return the outputs (steps, batch, width), which are also fed back into the step after each.

    Twice differentiable in all tensors but the last two, not three times.

    Args:
        projected: what words and biases add to the gates of the first layer, (steps, batch, 4 width).
        hidden, cell: first states (layers, batch, width).
        attention: K, V (batch, source, width) and W (width, width) of `kernels.attention`, or None.
        weights: for each layer (4 width, 2 width), gates in PyTorch's order: first what multiplies the input (in the
            first layer, the output of the step before), then what multiplies the state.
        biases: (4 width,) for each layer but the first.
        score_bias: (batch, source), 0 or minus infinity at padding.
        masks: for each step the factors (batch, width) of dropout, a layer each (the last's is not used) and that of
            the output; None for no dropout.
    """
    tensors = (projected, hidden, cell, *(attention or ()), *weights, *biases)
    return _Decoder.apply(score_bias, masks, len(weights), *tensors)
