"""The LSTM of the reverse pass against PyTorch's: values, dropout, both gradients; and against differences."""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from fairseq_l2t.kernels.lstm import fused_lstm, lstm_layer
from fairseq_l2t.kernels.twice_differentiable import attribute_replaced
from fairseq_l2t.testing.derivatives import largest_error, normal, three_derivatives

RAGGED = [3, 2, 2, 1]
WIDTH = 2
STOCK = torch._VF.lstm


def layer_inputs(seed: int = 0) -> tuple[torch.Tensor, ...]:
    """Return projected inputs, first states and the recurrent weight, for the batch sizes `RAGGED`."""
    sizes = (sum(RAGGED), 4 * WIDTH), (RAGGED[0], WIDTH), (RAGGED[0], WIDTH), (4 * WIDTH, WIDTH)
    return tuple(normal(*size, seed=seed + k) for k, size in enumerate(sizes))


@pytest.mark.parametrize("reverse", [False, True])
def test_layer_against_differences(reverse):
    def layer(*inputs: torch.Tensor):
        return lstm_layer(*inputs, RAGGED, reverse=reverse)

    assert torch.autograd.gradcheck(layer, layer_inputs())
    assert torch.autograd.gradgradcheck(layer, layer_inputs())


def test_closed_form_of_a_step():
    """One step of one unit, all preactivations 0: gates 1/2, candidate 0, so c = c'/2 and h = tanh(c)/2."""
    projected, weight = torch.zeros(1, 4, dtype=torch.float64), torch.zeros(4, 1, dtype=torch.float64)
    start = torch.tensor([[0.8]], dtype=torch.float64)
    outputs, hidden, cell = lstm_layer(projected, torch.zeros_like(start), start, weight, [1], reverse=False)
    assert float(cell) == pytest.approx(0.4, rel=1e-15)
    assert float(outputs) == float(hidden) == pytest.approx(float(torch.tanh(cell)) / 2, rel=1e-15)


def module_and_call(lengths, bidirectional: bool, dropout: float, dtype: torch.dtype = torch.float64):
    """Return the inputs of an LSTM of two layers, and a function of these with the dropout of seed 1."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        module = nn.LSTM(3, 4, 2, bidirectional=bidirectional, dropout=dropout).to(dtype)
    names = [name for name, _ in module.named_parameters()]

    def call(value: torch.Tensor, *weights: torch.Tensor):
        value = value if lengths is None else pack_padded_sequence(value, lengths)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            output, states = torch.func.functional_call(module, dict(zip(names, weights, strict=True)), (value,))
            call.generator = torch.get_rng_state()
        return output if lengths is None else output.data, *states

    value = normal(4 if lengths is None else max(lengths), 3, 3, dtype=dtype)
    return call, (value, *(weight.detach().requires_grad_() for weight in module.parameters()))


@pytest.mark.parametrize("lengths", [[5, 3, 1], [4, 4, 4], None])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_module_against_stock(lengths, bidirectional, dropout):
    for dtype, bound in ((torch.float64, 1e-14), (torch.float32, 1e-5)):
        call, inputs = module_and_call(lengths, bidirectional, dropout, dtype)
        stock, drawn = three_derivatives(call, inputs), call.generator
        with attribute_replaced(torch._VF, "lstm", fused_lstm(STOCK)):
            fused = three_derivatives(call, inputs)
        assert largest_error(fused, stock) < bound
        assert torch.equal(call.generator, drawn)


def test_control_another_dropout_fails_the_comparison():
    found, other = (three_derivatives(*module_and_call([5, 3, 1], False, dropout)) for dropout in (0.5, 0.4))
    assert largest_error(found, other) > 1e-2


@pytest.mark.parametrize("batch_first", [False, True])
def test_batch_first_and_unbatched(batch_first):
    module = nn.LSTM(3, 4, batch_first=batch_first).double()
    for value in (normal(2, 5, 3), normal(5, 3)):
        stock = module(value)
        with attribute_replaced(torch._VF, "lstm", fused_lstm(STOCK)):
            fused = module(value)
        torch.testing.assert_close(fused, stock, rtol=1e-13, atol=1e-15)


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN:UserWarning")
def test_cases_of_the_stock_kernel():
    called = []

    def counted(*arguments):
        called.append(1)
        return STOCK(*arguments)

    projected, half = nn.LSTM(3, 4, proj_size=2), nn.LSTM(3, 4).to(torch.bfloat16)
    without_bias, plain = nn.LSTM(3, 4, bias=False), nn.LSTM(3, 4)
    with attribute_replaced(torch._VF, "lstm", fused_lstm(counted)):
        for count, module in enumerate((projected, half, without_bias), 1):
            module(torch.ones(2, 1, 3, dtype=next(module.parameters()).dtype))
            assert len(called) == count
        with torch.no_grad():
            plain(torch.ones(2, 1, 3))
        assert len(called) == 4
        plain(torch.ones(2, 1, 3))
    assert len(called) == 4


def test_a_third_derivative_is_refused():
    inputs = layer_inputs()
    outputs = lstm_layer(*inputs, RAGGED, reverse=False)[0]
    first = torch.autograd.grad(outputs.square().sum(), inputs, create_graph=True)
    with pytest.raises(RuntimeError, match="three times"):
        torch.autograd.grad(first[0].square().sum(), inputs[3], create_graph=True)


def test_graphs_that_are_used_more_than_once():
    """Two gradients of a forward pass in one outer pass; an outer pass that stops at the cotangent; the same again."""
    call, inputs = module_and_call([5, 3, 1], True, 0.5)

    def projected() -> list[torch.Tensor]:
        outputs = call(*inputs)[0]
        cotangent = normal(*outputs.shape, seed=1)
        firsts = [
            torch.autograd.grad(outputs, inputs, weight * cotangent, create_graph=True) for weight in (1.0, outputs)
        ]
        total = sum(part.square().sum() for first in firsts for part in first)
        torch.autograd.grad(total, cotangent, retain_graph=True)
        once, again = (torch.autograd.grad(total, [*inputs, cotangent], retain_graph=True) for _ in range(2))
        assert all(map(torch.equal, once, again))
        return list(once)

    stock = projected()
    with attribute_replaced(torch._VF, "lstm", fused_lstm(STOCK)):
        assert largest_error([projected()], [stock]) < 1e-13


def test_hooks_see_all_saved_tensors():
    """`unroll.gradients.bytes_of_graph` measures a graph by the tensors that autograd saves."""
    kept = set()

    def count(tensor: torch.Tensor) -> torch.Tensor:
        kept.add(tensor.untyped_storage().data_ptr())
        return tensor

    inputs = layer_inputs()
    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        outputs = lstm_layer(*inputs, RAGGED, reverse=False)[0]
        assert len(kept) == 1 + 4 + 4  # outputs; inputs; gates, cells before, their tanh, states before
        torch.autograd.grad(outputs.sum(), inputs, create_graph=True)
        assert len(kept) == 9 + 3 + 4  # three gradients and four factors
