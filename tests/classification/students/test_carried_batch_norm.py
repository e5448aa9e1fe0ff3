"""`CarriedBatchNorm2d` against `torch.nn.BatchNorm2d`, and its vector field against central differences."""

import pytest
import torch
from torch import nn
from torch.func import functional_call

from fairseq_l2t.classification.students.batch_norm import (
    CarriedBatchNorm2d,
    collect_statistics,
    running_loss,
    statistic_names,
)
from fairseq_l2t.kernels.twice_differentiable import outer_gradient

CHANNELS = 3


def normal(*size, seed=0):
    return torch.randn(size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pair(seed=0):
    """Ours and PyTorch's layer with the same random parameters and statistics."""
    ours, theirs = CarriedBatchNorm2d(CHANNELS).double(), nn.BatchNorm2d(CHANNELS).double()
    with torch.no_grad():
        for number, name in enumerate(("weight", "bias", "running_mean", "running_var")):
            values = normal(CHANNELS, seed=seed + number).abs() + 0.5
            getattr(ours, name).copy_(values)
            getattr(theirs, name).copy_(values)
    return ours, theirs


@pytest.mark.parametrize("training", [True, False])
def test_forward_and_backward_are_those_of_pytorch(training):
    ours, theirs = (layer.train(training) for layer in pair())
    results = []
    for layer in (ours, theirs):
        x = normal(4, CHANNELS, 5, 2, seed=9).requires_grad_()
        out = layer(x)
        results.append([out, *torch.autograd.grad((out**3).sum(), [x, layer.weight, layer.bias])])
    for mine, reference in zip(*results, strict=True):
        torch.testing.assert_close(mine, reference, rtol=1e-12, atol=1e-12)


def test_eval_mode_is_differentiable_in_the_running_statistics():
    layer, names = pair()[0].eval(), ("weight", "bias", "running_mean", "running_var")

    def forward(x, *values):
        return functional_call(layer, dict(zip(names, values, strict=True)), (x,))

    inputs = [normal(2, CHANNELS, 2, 2).requires_grad_()]
    inputs += [getattr(layer, name).detach().clone().requires_grad_() for name in names]
    assert torch.autograd.gradcheck(forward, inputs)
    assert torch.autograd.gradgradcheck(forward, inputs)


def test_double_backward_of_pytorchs_node_is_right_in_train_mode():
    layer = CarriedBatchNorm2d(CHANNELS).double()

    def forward(x, weight, bias):
        return functional_call(layer, {"weight": weight, "bias": bias}, (x,))

    inputs = [normal(4, CHANNELS, 2, 2), normal(CHANNELS, seed=1), normal(CHANNELS, seed=2)]
    assert torch.autograd.gradgradcheck(forward, [value.requires_grad_() for value in inputs])


def running_after(updates, *, correction=1):
    """Ours and PyTorch's running statistics after updates; ours by gradient steps with learning rate `momentum`."""
    ours, theirs = pair()
    for update in range(updates):
        x = normal(4, CHANNELS, 3, 2, seed=20 + update) * (1 + update)
        theirs(x)
        with collect_statistics() as collected:
            ours(x)
        if correction != 1:
            collected = [one._replace(variance=x.var((0, 2, 3), correction=correction)) for one in collected]
        running = [ours.running_mean, ours.running_var]
        gradients = torch.autograd.grad(running_loss(collected), running)
        with torch.no_grad():
            for parameter, gradient in zip(running, gradients, strict=True):
                parameter.sub_(gradient, alpha=ours.momentum)
    return torch.cat(running).detach(), torch.cat([theirs.running_mean, theirs.running_var])


def test_a_gradient_step_is_pytorchs_running_average():
    mine, reference = running_after(5)
    torch.testing.assert_close(mine, reference, rtol=1e-13, atol=1e-13)
    # The control: the biased variance is another average.
    mine, reference = running_after(5, correction=0)
    assert float((mine - reference).abs().max()) > 1e-2


def test_train_mode_changes_nothing_in_place():
    layer = pair()[0]
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    with collect_statistics() as collected:
        layer(normal(4, CHANNELS, 2, 2))
    assert len(collected) == 1
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())


def test_collectors_nest_and_close():
    layer, x = pair()[0], normal(4, CHANNELS, 2, 2)
    with collect_statistics() as outer:
        layer(x)
        with pytest.raises(KeyError), collect_statistics() as inner:
            layer(x)
            raise KeyError
        layer.eval()(x)
        layer.train()(2 * x)
    layer(x)
    assert len(inner) == 1
    assert [layer for layer, _, _ in outer] == [layer, layer]
    torch.testing.assert_close(outer[1].mean, 2 * outer[0].mean)


def test_of_no_batch_normalisation_the_loss_is_zero():
    with collect_statistics() as collected:
        nn.ReLU()(normal(2))
    assert collected == []
    assert float(running_loss(collected)) == 0.0


def test_a_single_value_a_channel_is_refused():
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        CarriedBatchNorm2d(CHANNELS)(torch.zeros(1, CHANNELS, 1, 1))


# --- the vector field of a small network --------------------------------------------------------------------------


def small_network():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3, bias=False),
        CarriedBatchNorm2d(3),
        nn.ReLU(),
        nn.Conv2d(3, 2, 2),
        CarriedBatchNorm2d(2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8, 3),
    )
    return model.double()


IMAGES, LABELS = normal(5, 2, 5, 5, seed=3), torch.tensor([0, 1, 2, 0, 1])


def losses(model, values=None):
    """Loss of the labels, and `running_loss`, with the parameters replaced by ``values``."""
    with collect_statistics() as collected:
        logits = model(IMAGES) if values is None else functional_call(model, values, (IMAGES,))
        loss = nn.functional.cross_entropy(logits, LABELS)
    assert len(collected) == 2
    return loss, collected


def test_names_are_those_of_the_statistics():
    names = statistic_names(small_network())
    assert names == {"1.running_mean", "1.running_var", "4.running_mean", "4.running_var"}
    assert statistic_names(CarriedBatchNorm2d(2)) == {"running_mean", "running_var"}
    assert statistic_names(nn.BatchNorm2d(2)) == frozenset()


def test_the_first_gradient_of_the_weights_is_untouched():
    model = small_network()
    statistics = statistic_names(model)
    weights = [parameter for name, parameter in model.named_parameters() if name not in statistics]
    loss, _ = losses(model)
    alone = torch.autograd.grad(loss, weights)
    loss, collected = losses(model)
    together = torch.autograd.grad(loss + running_loss(collected), weights)
    assert all(torch.equal(*one) for one in zip(alone, together, strict=True))


def vector_field(model, values):
    """F(w, r) = (grad_w L, r - s(w)), written out without `running_loss`; a vector."""
    statistics = statistic_names(model)
    # functional_call puts the parameters back after the forward pass: the layers' own r is not that of `values`.
    loss, collected = losses(model, values)
    seen = iter([one for layer in collected for one in (layer.mean, layer.variance)])
    weights = [name for name in values if name not in statistics]
    gradients = dict(zip(weights, torch.autograd.grad(loss, [values[name] for name in weights]), strict=True))
    return torch.cat(
        [(gradients[name] if name in gradients else values[name] - next(seen)).detach().reshape(-1) for name in values]
    )


def measured_product(model, cotangent, h=1e-5):
    """J^T v by central differences of the vector field, one parameter after another."""
    vector = torch.cat([parameter.detach().reshape(-1) for parameter in model.parameters()])
    names, shapes = zip(*((name, parameter.shape) for name, parameter in model.named_parameters()), strict=True)

    def field_at(moved):
        parts = moved.split([shape.numel() for shape in shapes])
        values = {
            name: part.reshape(shape).clone().requires_grad_()
            for name, part, shape in zip(names, parts, shapes, strict=True)
        }
        return vector_field(model, values)

    steps = torch.eye(len(vector), dtype=vector.dtype) * h
    return torch.stack([(field_at(vector + step) - field_at(vector - step)) @ cotangent / (2 * h) for step in steps])


def product(model, cotangent, running=running_loss):
    """J^T v by double backward under `outer_gradient`."""
    parameters = list(model.parameters())
    loss, collected = losses(model)
    gradients = torch.autograd.grad(loss + running(collected), parameters, create_graph=True)
    with outer_gradient():
        pulled = torch.autograd.grad(torch.cat([g.reshape(-1) for g in gradients]), parameters, grad_outputs=cotangent)
    return torch.cat([one.reshape(-1) for one in pulled])


def running_loss_detached(collected):
    return running_loss([one._replace(mean=one.mean.detach(), variance=one.variance.detach()) for one in collected])


def test_double_backward_is_the_adjoint_of_the_vector_field():
    model = small_network()
    cotangent = normal(sum(parameter.numel() for parameter in model.parameters()), seed=7)
    measured = measured_product(model, cotangent)
    torch.testing.assert_close(product(model, cotangent), measured, rtol=1e-6, atol=1e-8)
    # The control: without the way through s to the weights the adjoint is another.
    assert float((product(model, cotangent, running_loss_detached) - measured).abs().max()) > 1e-1
