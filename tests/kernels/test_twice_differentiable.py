"""Second derivatives: each measured defect without the context, and its correction with it."""

import importlib
from contextlib import nullcontext
from functools import partial

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F

from fairseq_l2t.kernels.twice_differentiable import (
    VERIFIED_TORCH_MODULES,
    NotTwiceDifferentiableError,
    ScaledGradient,
    attribute_replaced,
    outer_gradient,
    refuse_unverified,
    twice_differentiable,
    unverified_modules,
)
from fairseq_l2t.testing.hypergradient_check import five_point_slope
from fairseq_l2t.testing.toy_student import MODELS, PlainScaling, Recurrent, ToyStudent, WeightNormed

# torch.nn.utils.weight_norm is the function of that name
WEIGHT_NORM_MODULE = importlib.import_module("torch.nn.utils.weight_norm")


def normal(*size: int, seed: int = 0) -> torch.Tensor:
    """Return a random float64 leaf."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(size, generator=generator, dtype=torch.float64).requires_grad_()


class _OneWeight(nn.Module):
    """A module that returns its only parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(normal(3, 4, 5).detach())

    def forward(self) -> torch.Tensor:
        """Return the weight."""
        return self.weight * 1.0


def weight_norm_is_right(dim: int) -> bool:
    """Return whether the double backward of torch.nn.utils.weight_norm over ``dim`` passes the check."""
    module = nn.utils.weight_norm(_OneWeight(), dim=dim)
    names = [name for name, _ in module.named_parameters()]

    def weight(*values: torch.Tensor) -> torch.Tensor:
        return functional_call(module, dict(zip(names, values, strict=True)), ())

    inputs = tuple(parameter.detach().clone().requires_grad_() for parameter in module.parameters())
    return torch.autograd.gradgradcheck(weight, inputs, raise_exception=False)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated:FutureWarning")
@pytest.mark.parametrize(("dim", "right_without"), [(0, False), (1, True), (2, False)])
def test_weight_norm(dim, right_without):
    assert weight_norm_is_right(dim) == right_without
    with twice_differentiable():
        assert weight_norm_is_right(dim)


def test_weight_norm_has_the_same_values():
    model = WeightNormed().double().eval()
    words = torch.arange(1, 7).view(2, 3)
    with twice_differentiable():
        composed = model(words)
    torch.testing.assert_close(composed, model(words), rtol=1e-14, atol=1e-15)


def test_attention():
    inputs = tuple(normal(1, 2, 3, 4, seed=k) for k in range(3))
    with pytest.raises(RuntimeError, match="flash_attention.* is not implemented"):
        torch.autograd.gradgradcheck(F.scaled_dot_product_attention, inputs)
    with twice_differentiable():
        assert torch.autograd.gradgradcheck(F.scaled_dot_product_attention, inputs)
        assert torch.autograd.gradgradcheck(partial(F.scaled_dot_product_attention, is_causal=True), inputs, atol=1e-6)


def test_attributes_are_restored():
    class Owner:
        kind = "of the class"

    owner = Owner()
    owner.own = 1
    with pytest.raises(KeyError), attribute_replaced(owner, "kind", "replaced"), attribute_replaced(owner, "own", 2):
        assert (owner.kind, owner.own) == ("replaced", 2)
        raise KeyError
    assert (owner.kind, owner.own) == ("of the class", 1)
    assert vars(owner) == {"own": 1}


def test_multihead_attention_in_training():
    model, words = Recurrent().double(), torch.arange(1, 7).view(2, 3)

    def curvature(context) -> torch.Tensor:
        with context:
            loss = model(words).square().sum()
            first = torch.autograd.grad(loss, model.lstm.weight_hh_l0, create_graph=True)[0]
            return torch.autograd.grad(first.square().sum(), model.embedding.weight)[0]

    with pytest.raises(RuntimeError, match="is not implemented"):
        curvature(nullcontext())
    assert bool(torch.isfinite(curvature(twice_differentiable())).all())


def test_cudnn_is_off_inside():
    before = torch.backends.cudnn.enabled
    with twice_differentiable():
        assert not torch.backends.cudnn.enabled
    assert torch.backends.cudnn.enabled == before


class _TiedPaddingRow:
    """A scalar of a weight (entries, width) whose rows, the padding row included, are inputs and output layer."""

    TOKENS = torch.tensor([[0, 0, 2, 1], [3, 1, 2, 2]])

    def __call__(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the scalar."""
        return torch.tanh(F.embedding(self.TOKENS, weight, 0) @ weight.t()).square().sum()

    def gradient(self, weight: torch.Tensor) -> torch.Tensor:
        """Return PyTorch's own gradient, in which look-ups of the padding row have no part."""
        return torch.autograd.grad(self(weight), weight)[0]


def products_of_tied_padding_row(context) -> tuple[float, float]:
    """Return ``v . (J^T u)`` by double backward in ``context`` and ``u . (J v)`` by differences."""
    scalar, weight = _TiedPaddingRow(), normal(4, 3)
    u, v = normal(4, 3, seed=1).detach(), normal(4, 3, seed=2).detach()

    def moved(distance: float) -> float:
        return float((scalar.gradient((weight + distance * v).detach().requires_grad_()) * u).sum())

    with context:
        inner = torch.autograd.grad(scalar(weight), weight, create_graph=True)[0]
        assert torch.equal(inner.detach(), scalar.gradient(weight))
        with outer_gradient():
            pulled = torch.autograd.grad(inner, weight, grad_outputs=u)[0]
    return float((pulled * v).sum()), five_point_slope(moved, 1e-3)


def test_a_padding_row_that_moves():
    by_double_backward, by_differences = products_of_tied_padding_row(twice_differentiable())
    assert by_double_backward == pytest.approx(by_differences, rel=1e-8)
    # The control: PyTorch's embedding takes the row for a constant.
    by_double_backward, by_differences = products_of_tied_padding_row(nullcontext())
    assert abs(by_double_backward - by_differences) > 1e-3 * abs(by_differences)


def test_the_gradient_of_a_measure_reaches_the_padding_row():
    scalar, weight = _TiedPaddingRow(), normal(4, 3)
    with twice_differentiable(), outer_gradient():
        assert torch.autograd.gradcheck(scalar, weight)
    assert not torch.autograd.gradcheck(scalar, weight, raise_exception=False)


def test_the_gradient_of_a_look_up_keeps_its_bits():
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(0, 30, (8, 50), generator=generator)
    weight, cotangent = normal(30, 5).float(), normal(8, 50, 5).float()
    for padding in (3, -27, None):
        expected = torch.autograd.grad(F.embedding(tokens, weight, padding), weight, cotangent)[0]
        with twice_differentiable():
            found = torch.autograd.grad(F.embedding(tokens, weight, padding), weight, cotangent)[0]
        assert torch.equal(found, expected)
        assert bool(found[3].any()) == (padding is None)


# A module and its input for every verified torch.nn class; containers compute nothing themselves.
VERIFIED = {
    "activation.GELU": (nn.GELU, normal(2, 3)),
    "activation.GLU": (nn.GLU, normal(2, 4)),
    "activation.ReLU": (nn.ReLU, normal(2, 3)),
    "activation.Sigmoid": (nn.Sigmoid, normal(2, 3)),
    "activation.Softmax": (partial(nn.Softmax, dim=-1), normal(2, 3)),
    "activation.Tanh": (nn.Tanh, normal(2, 3)),
    "conv.Conv1d": (partial(nn.Conv1d, 2, 2, 2, padding=1), normal(1, 2, 3)),
    "conv.Conv2d": (partial(nn.Conv2d, 2, 2, 2), normal(1, 2, 3, 3)),
    "dropout.Dropout": (partial(nn.Dropout, 0.5), normal(3, 3)),
    "linear.Identity": (nn.Identity, normal(2, 3)),
    "linear.Linear": (partial(nn.Linear, 3, 2), normal(2, 3)),
    "normalization.LayerNorm": (partial(nn.LayerNorm, 3), normal(2, 3)),
    "rnn.LSTM": (partial(nn.LSTM, 1, 1, num_layers=2, bidirectional=True), normal(2, 1, 1)),
    "rnn.LSTMCell": (partial(nn.LSTMCell, 2, 2), normal(2, 2)),
    "sparse.Embedding": (partial(nn.Embedding, 4, 2, padding_idx=0), torch.tensor([[0, 1], [3, 1]])),
}
CONTAINERS = {f"container.{name}" for name in ("ModuleDict", "ModuleList", "ParameterList", "Sequential")}


def test_every_verified_module_is_tested():
    assert {f"torch.nn.modules.{name}" for name in {*VERIFIED, *CONTAINERS}} == VERIFIED_TORCH_MODULES


@pytest.mark.parametrize("name", VERIFIED)
def test_verified_module(name):
    make, value = VERIFIED[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        module = make().double()
    parameters = dict(module.named_parameters())

    def outputs(value: torch.Tensor, *weights: torch.Tensor):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(2)
            found = functional_call(module, dict(zip(parameters, weights, strict=True)), (value,))
        while isinstance(found, tuple):
            found = found[0]
        return found * found  # so that linear modules have a second derivative

    weights = tuple(parameter.detach().clone().requires_grad_() for parameter in parameters.values())
    with twice_differentiable():
        assert torch.autograd.gradgradcheck(outputs, (value, *weights))


def vector_products(node: type[torch.autograd.Function], scale: float) -> tuple[float, float]:
    """Return ``v . (J^T u)`` by double backward and ``u . (J v)`` by differences of the real update.

    J is the Jacobian of a gradient that passes through ``node`` between two layers.
    """
    student = ToyStudent("scaled")
    student.model.node = node
    student.model.forward = lambda words: student.model.output(node.apply(student.model.middle(words), scale))
    start, batch = student.omega.clone(), student.next_batch()[:1]
    generator = torch.Generator().manual_seed(4)
    u, v = (torch.randn(start.shape, generator=generator, dtype=start.dtype) for _ in range(2))

    def gradient(*, graph: bool) -> torch.Tensor:
        with student.replay(0):
            loss = sum(part.total for part in student.losses(batch, None, measure=False))
        return student.parameters.gather(torch.autograd.grad(loss, student.parameters.parameters, create_graph=graph))

    def moved(distance: float) -> float:
        student.set_omega(start + distance * v)
        return float(gradient(graph=False) @ u)

    jacobian_first = five_point_slope(moved, 1e-3)
    student.set_omega(start)
    inner = gradient(graph=True)
    with outer_gradient():
        pulled = torch.autograd.grad(inner, student.parameters.parameters, grad_outputs=u)
    return float(student.parameters.gather(pulled) @ v), jacobian_first


@pytest.mark.parametrize("scale", [0.3, 1.0, 2.5])
def test_scaled_gradient(scale):
    by_double_backward, by_differences = vector_products(ScaledGradient, scale)
    assert by_double_backward == pytest.approx(by_differences, rel=1e-8)


def test_scaled_gradient_control_the_plain_node_is_wrong():
    by_double_backward, by_differences = vector_products(PlainScaling, 0.3)
    assert abs(by_double_backward - by_differences) > 0.05 * abs(by_differences)
    # with factor 1 both agree
    by_double_backward, by_differences = vector_products(PlainScaling, 1.0)
    assert by_double_backward == pytest.approx(by_differences, rel=1e-8)


def test_scaled_gradient_values():
    value = normal(3)
    result = ScaledGradient.apply(value, 0.25)
    assert torch.equal(result, value)
    assert torch.autograd.grad(result.sum(), value, retain_graph=True)[0].tolist() == [0.25] * 3
    with outer_gradient():
        assert torch.autograd.grad(result.sum(), value)[0].tolist() == [1.0] * 3


def test_marks_and_replacements_end_with_their_block():
    value, before = normal(3), WEIGHT_NORM_MODULE._weight_norm
    with pytest.raises(KeyError), twice_differentiable(), outer_gradient(), outer_gradient():
        raise KeyError
    assert torch.autograd.grad(ScaledGradient.apply(value, 0.5).sum(), value)[0].tolist() == [0.5] * 3
    assert WEIGHT_NORM_MODULE._weight_norm is before
    with twice_differentiable():
        with twice_differentiable():
            pass
        assert WEIGHT_NORM_MODULE._weight_norm is not before
    assert WEIGHT_NORM_MODULE._weight_norm is before


class _Strange(nn.Module):
    """A module without verified second derivatives."""


def test_unverified_modules_are_named():
    model = nn.ModuleDict({"first": nn.Linear(1, 1), "inner": nn.Sequential(nn.Tanh(), _Strange())})
    model["attention"] = nn.MultiheadAttention(2, 1)
    strange, attention = f"{_Strange.__module__}._Strange", "torch.nn.modules.activation.MultiheadAttention"
    projection = ("attention.out_proj", "torch.nn.modules.linear.NonDynamicallyQuantizableLinear")
    assert unverified_modules(model) == [("inner.1", strange), ("attention", attention), projection]
    assert unverified_modules(model, verified=[strange]) == [("attention", attention), projection]
    with pytest.raises(NotTwiceDifferentiableError) as caught:
        refuse_unverified(model)
    assert str(caught.value) == (
        f"second derivatives are not verified in: inner.1 ({strange}); attention ({attention}); "
        f"{projection[0]} ({projection[1]})"
    )
    assert unverified_modules(_Strange()) == [("(the model)", strange)]
    with pytest.raises(NotTwiceDifferentiableError, match=r"\(the model\) \(.*_Strange\)"):
        refuse_unverified(_Strange())


@pytest.mark.parametrize("setting", [{"max_norm": 1.0}, {"scale_grad_by_freq": True}, {"sparse": True}])
def test_an_embedding_with_another_gradient_is_named(setting):
    model, (name,) = nn.Sequential(nn.Embedding(4, 2, **setting)), setting
    with pytest.raises(NotTwiceDifferentiableError, match=rf"in: 0 \(torch.nn.modules.sparse.Embedding:{name}\)"):
        refuse_unverified(model)
    refuse_unverified(model, verified=[f"torch.nn.modules.sparse.Embedding:{name}"])


def test_verified_models_pass():
    model = nn.Sequential(nn.Linear(1, 1), nn.LSTM(1, 1))
    refuse_unverified(model)
    assert unverified_modules(model) == []
    perceptron = MODELS["tanh"]()
    assert unverified_modules(perceptron) == [("(the model)", "fairseq_l2t.testing.toy_student.Perceptron")]
    with pytest.raises(NotTwiceDifferentiableError):
        refuse_unverified(perceptron)
    refuse_unverified(MODELS["tanh"](), verified=["fairseq_l2t.testing.toy_student.Perceptron"])
