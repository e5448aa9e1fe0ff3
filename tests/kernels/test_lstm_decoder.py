"""The decoder's loop as one node, against the same loop in single operations, and against differences."""

import pytest
import torch
from torch import Tensor

from fairseq_l2t.kernels.lstm_decoder import fused_decoder
from fairseq_l2t.testing.derivatives import largest_error, normal, three_derivatives

STEPS, BATCH, SOURCE, WIDTH = 3, 2, 3, 2
BIAS = torch.tensor([[0.0, 0.0, -torch.inf], [0.0, 0.0, 0.0]], dtype=torch.float64)


class Case:
    """A decoder with ``layers`` layers, with or without attention and dropout."""

    def __init__(self, layers: int, *, attention: bool, dropout: bool, dtype: torch.dtype = torch.float64) -> None:
        self.layers, self.attention = layers, attention
        states, memory = (layers, BATCH, WIDTH), (BATCH, SOURCE, WIDTH)
        sizes = [(STEPS, BATCH, 4 * WIDTH), states, states]
        sizes += [memory, memory, (WIDTH, WIDTH)] if attention else []
        self.split = len(sizes)
        sizes += [(4 * WIDTH, 2 * WIDTH)] * layers + [(4 * WIDTH,)] * (layers - 1)
        self.inputs = [normal(*size, seed=k, dtype=dtype) for k, size in enumerate(sizes)]
        self.masks = None
        if dropout:
            masks = 2.0 * (normal(STEPS, layers + 1, BATCH, WIDTH, seed=50, dtype=dtype) > 0).to(dtype)
            self.masks = [list(places) for places in masks]

    def fused(self, *inputs: Tensor) -> tuple[Tensor]:
        """Return the outputs of the node."""
        weights = self.split + self.layers
        attention = inputs[3:6] if self.attention else None
        return (
            fused_decoder(
                *inputs[:3],
                attention,
                inputs[self.split : weights],
                inputs[weights:],
                score_bias=BIAS.to(inputs[0]),
                masks=self.masks,
            ),
        )

    def composed(self, *inputs: Tensor) -> tuple[Tensor]:
        """Return the outputs of PyTorch's own operations."""
        weights, biases = inputs[self.split :][: self.layers], (0.0, *inputs[self.split + self.layers :])
        hidden, cell = list(inputs[1]), list(inputs[2])
        outputs = [torch.zeros_like(hidden[0])]
        for k in range(STEPS):
            below = outputs[-1]
            for layer in range(self.layers):
                gates = torch.cat((below, hidden[layer]), 1) @ weights[layer].t() + biases[layer]
                i, f, g, o = (gates if layer else gates + inputs[0][k]).chunk(4, 1)
                cell[layer] = f.sigmoid() * cell[layer] + i.sigmoid() * g.tanh()
                hidden[layer] = o.sigmoid() * cell[layer].tanh()
                below = hidden[layer] if self.masks is None else hidden[layer] * self.masks[k][layer]
            output = hidden[-1]
            if self.attention:
                keys, values, weight = inputs[3:6]
                attended = torch.softmax((keys * output.unsqueeze(1)).sum(2) + BIAS.to(output), 1)
                output = torch.tanh((attended.unsqueeze(2) * values).sum(1) + output @ weight.t())
            outputs.append(output if self.masks is None else output * self.masks[k][self.layers])
        return (torch.stack(outputs[1:]),)


@pytest.mark.parametrize("dropout", [False, True])
@pytest.mark.parametrize("attention", [False, True])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_against_single_operations(layers, attention, dropout):
    for dtype, bound in ((torch.float64, 2e-14), (torch.float32, 2e-5)):
        case = Case(layers, attention=attention, dropout=dropout, dtype=dtype)
        found = three_derivatives(case.fused, case.inputs)
        assert largest_error(found, three_derivatives(case.composed, case.inputs)) < bound


def test_control_another_dropout_and_no_attention_fail_the_comparison():
    with_dropout, without = (Case(2, attention=True, dropout=dropout) for dropout in (True, False))
    found = three_derivatives(with_dropout.fused, with_dropout.inputs)
    assert largest_error(found, three_derivatives(without.composed, without.inputs)) > 1e-2
    found = three_derivatives(without.fused, without.inputs)
    without.masks = [[torch.ones(BATCH, WIDTH, dtype=torch.float64)] * 3] * STEPS
    assert largest_error(found, three_derivatives(without.composed, without.inputs)) < 1e-14


@pytest.mark.parametrize("attention", [False, True])
@pytest.mark.parametrize("layers", [1, 2])
def test_against_differences(layers, attention):
    case = Case(layers, attention=attention, dropout=True)
    assert torch.autograd.gradcheck(case.fused, case.inputs)
    assert torch.autograd.gradgradcheck(case.fused, case.inputs)


def test_graphs_that_are_used_more_than_once():
    """Two gradients of a forward pass in one outer pass; an outer pass that stops at the cotangent; the same again."""
    case = Case(2, attention=True, dropout=True)

    def projected(function) -> list[Tensor]:
        (outputs,) = function(*case.inputs)
        cotangent = normal(*outputs.shape, seed=1)
        firsts = [
            torch.autograd.grad(outputs, case.inputs, weight * cotangent, create_graph=True)
            for weight in (1.0, outputs)
        ]
        total = sum(part.square().sum() for first in firsts for part in first)
        torch.autograd.grad(total, cotangent, retain_graph=True)
        once, again = (torch.autograd.grad(total, [*case.inputs, cotangent], retain_graph=True) for _ in range(2))
        assert all(map(torch.equal, once, again))
        return list(once)

    assert largest_error([projected(case.fused)], [projected(case.composed)]) < 1e-13


def test_a_third_derivative_is_refused():
    case = Case(1, attention=True, dropout=False)
    (outputs,) = case.fused(*case.inputs)
    first = torch.autograd.grad(outputs.square().sum(), case.inputs, create_graph=True)
    with pytest.raises(RuntimeError, match="three times"):
        torch.autograd.grad(first[0].square().sum(), case.inputs, create_graph=True)


def test_padding_is_not_attended_to():
    case = Case(1, attention=True, dropout=False)
    changed = list(case.inputs)
    for place in (3, 4):
        moved = changed[place].detach().clone()
        moved[0, 2] += 7.0
        changed[place] = moved
    assert torch.equal(case.fused(*changed)[0], case.fused(*case.inputs)[0])
    changed[3][1, 2] += 7.0  # the other sentence has no padding
    assert not torch.equal(case.fused(*changed)[0], case.fused(*case.inputs)[0])
