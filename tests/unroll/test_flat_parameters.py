"""One flat vector and the parameters that are views of it."""

import math

import pytest
import torch
from torch import nn

from fairseq_l2t.testing.toy_student import MODELS, WIDTH, WORDS
from fairseq_l2t.unroll.flat_parameters import FlatParameters


def small() -> tuple[nn.Module, FlatParameters]:
    """Return a linear layer of 2 x 3 and its flat parameters."""
    module = nn.Linear(3, 2)
    return module, FlatParameters(module.named_parameters())


def test_order_and_values():
    module = nn.Linear(3, 2)
    weight, bias = module.weight.detach().clone(), module.bias.detach().clone()
    flat = FlatParameters(module.named_parameters())
    assert flat.names == ("weight", "bias")
    assert len(flat) == 8
    assert torch.equal(flat.buffer, torch.cat([weight.reshape(-1), bias]))
    assert torch.equal(module.weight, weight)
    assert flat.parameters[0] is module.weight
    assert module.weight.requires_grad


def test_parameters_are_views_both_ways():
    module, flat = small()
    flat.set(torch.arange(8.0))
    assert module.weight.tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
    assert module.bias.tolist() == [6.0, 7.0]
    with torch.no_grad():
        module.bias[1] = -1.0
    assert flat.buffer[7] == -1.0
    for parameter in module.parameters():
        assert parameter.untyped_storage().data_ptr() == flat.buffer.untyped_storage().data_ptr()


def test_set_takes_another_dtype_and_copies():
    _, flat = small()
    vector = torch.arange(8.0, dtype=torch.float64)
    flat.set(vector)
    vector.zero_()
    assert flat.buffer.dtype == torch.float32
    assert flat.buffer.sum() == 28


def test_split_and_gather_are_inverse():
    _, flat = small()
    vector = torch.arange(8.0)
    weight, bias = flat.split(vector)
    assert (weight.shape, bias.shape) == ((2, 3), (2,))
    assert torch.equal(flat.gather([weight, bias]), vector)
    assert torch.equal(flat.gather([weight, None]), torch.tensor([0.0, 1, 2, 3, 4, 5, 0, 0]))
    # the order of rows is that of the parameter, independent of the strides of the gradient
    assert torch.equal(flat.gather([weight.t().contiguous().t(), bias]), vector)


def test_tied_parameter_is_there_once():
    model = MODELS["tied"]()
    flat = FlatParameters(model.named_parameters())
    assert flat.names == ("embedding.weight", "hidden.weight", "hidden.bias", "output.bias")
    assert len(flat) == WORDS * WIDTH + WIDTH * WIDTH + WIDTH + WORDS
    flat.set(torch.ones(len(flat)))
    assert model.output.weight is model.embedding.weight
    assert bool((model.output.weight == 1).all())


@pytest.mark.parametrize("model", MODELS)
def test_outputs_follow_the_vector(model):
    module = MODELS[model]().eval()
    words = torch.arange(1, 7).view(2, 3)
    flat = FlatParameters(module.named_parameters())
    vector, before = flat.buffer.clone(), module(words)
    flat.set(vector * 1.5)
    assert (module(words) - before).abs().max() > 1e-3
    flat.set(vector)
    assert torch.equal(module(words), before)


@pytest.mark.parametrize(("place", "name"), [(None, None), (0, "weight"), (5, "weight"), (6, "bias"), (7, "bias")])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_first_bad(place, name, bad):
    _, flat = small()
    vector = torch.zeros(8)
    if place is not None:
        vector[place:] = bad
    assert flat.first_bad(vector) == name


def test_no_parameters():
    with pytest.raises(ValueError, match="parameters: none"):
        FlatParameters([])


def test_mixed_dtypes():
    module = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).double())
    with pytest.raises(ValueError, match=r"dtypes \['torch.float32', 'torch.float64'\]; expected one"):
        FlatParameters(module.named_parameters())
