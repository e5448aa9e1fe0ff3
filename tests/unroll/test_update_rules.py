"""Each rule against its optimizer; each adjoint against autograd and finite differences."""

import importlib.util

import pytest
import torch

from fairseq_l2t.checks.float64 import KeepFloat64
from fairseq_l2t.testing.differentiable_rules import differentiable_clipping, differentiable_rule
from fairseq_l2t.testing.hypergradient_check import five_point_slope
from fairseq_l2t.unroll.update_rules import NAG, SGD, Adagrad, Adam, Clipping, StepSize

SIZE = 7
RATES = (0.3, 0.3, 0.1, 0.0, 0.2, 0.5)
"""A schedule with a rate of 0, after which NAG's correction is a special case."""

RULES = {
    "sgd": SGD(),
    "sgd_decay": SGD(weight_decay=0.3),
    "momentum": SGD(momentum=0.9),
    "momentum_decay": SGD(momentum=0.9, weight_decay=0.3),
    "nag": NAG(momentum=0.7),
    "nag_decay": NAG(momentum=0.7, weight_decay=0.3),
    "adam": Adam(0.8, 0.95, 1e-3),
    "adam_decay": Adam(0.8, 0.95, 1e-8, weight_decay=0.3),
    "adagrad": Adagrad(),
    "adagrad_decay": Adagrad(weight_decay=0.3, eps=1e-3),
}


def draw(seed: int, count: int) -> list[torch.Tensor]:
    """Return ``count`` random vectors in float64."""
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(SIZE, generator=generator, dtype=torch.float64) for _ in range(count)]


def sizes() -> list[StepSize]:
    """Return the step sizes of `RATES`."""
    previous = (RATES[0], *RATES[:-1])
    return [StepSize(lr, before, k) for k, (lr, before) in enumerate(zip(RATES, previous, strict=True), 1)]


def run_ours(rule, start: torch.Tensor, gradients: list[torch.Tensor]) -> list[torch.Tensor]:
    """Return omega after each update of ``rule``."""
    omega, found = start, []
    buffers = tuple(torch.zeros_like(omega) for _ in range(rule.buffer_count))
    for gradient, size in zip(gradients, sizes(), strict=True):
        omega, buffers = rule.apply(omega, buffers, gradient, size)
        found.append(omega)
    return found


def run_optimizer(make, start: torch.Tensor, gradients: list[torch.Tensor]) -> list[torch.Tensor]:
    """Return the parameter after each step of the real optimizer ``make([parameter])``."""
    parameter = torch.nn.Parameter(start.clone())
    optimizer, found = make([parameter]), []
    for gradient, lr in zip(gradients, RATES, strict=True):
        optimizer.param_groups[0]["lr"] = lr
        parameter.grad = gradient.clone()
        with KeepFloat64():  # fairseq's NAG casts the gradient to float32
            optimizer.step()
        found.append(parameter.detach().clone())
    return found


def fairseq_optimizer(name: str):
    """Return a class of fairseq.optim; skip if fairseq is not installed (another import error fails the test)."""
    if importlib.util.find_spec("fairseq") is None:
        pytest.skip("fairseq is not installed: its optimizers cannot be compared with")
    module = importlib.import_module(f"fairseq.optim.{name}")
    return getattr(module, {"adam": "Adam", "nag": "NAG"}[name])


def real_optimizer(rule):
    """Return a function from parameters to the optimizer of ``rule``."""
    if isinstance(rule, SGD):
        options = {"lr": RATES[0], "momentum": rule.momentum, "weight_decay": rule.weight_decay}
        return lambda parameters: torch.optim.SGD(parameters, **options)
    if isinstance(rule, Adagrad):
        options = {"lr": RATES[0], "eps": rule.eps, "weight_decay": rule.weight_decay}
        return lambda parameters: torch.optim.Adagrad(parameters, **options)
    if isinstance(rule, NAG):
        nag, options = fairseq_optimizer("nag"), {"lr": RATES[0], "momentum": rule.momentum}
        return lambda parameters: nag(parameters, weight_decay=rule.weight_decay, **options)
    adam, options = fairseq_optimizer("adam"), {"betas": (rule.beta1, rule.beta2), "eps": rule.eps}
    return lambda parameters: adam(parameters, weight_decay=rule.weight_decay, **options)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_same_updates_as_the_real_optimizer(rule):
    start, *gradients = draw(1, 1 + len(RATES))
    gradients[0][2] = gradients[1][2] = 0.0  # a parameter that has not been reached yet
    theirs = run_optimizer(real_optimizer(rule), start, gradients)
    for ours, expected in zip(run_ours(rule, start, gradients), theirs, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("rule", [rule for rule in RULES.values() if rule.weight_decay])
def test_optimizer_control_other_settings_differ(rule):
    start, *gradients = draw(1, 1 + len(RATES))
    other = type(rule)(**{**vars(rule), "weight_decay": 0.25})
    ours = run_ours(other, start, gradients)[-1]
    assert (ours - run_optimizer(real_optimizer(rule), start, gradients)[-1]).abs().max() > 1e-3


def test_adam_is_not_the_adam_of_torch():
    # fairseq's Adam adds eps outside the bias correction; the difference is visible for small gradients.
    start, *gradients = draw(1, 1 + len(RATES))
    gradients = [1e-4 * gradient for gradient in gradients]
    rule = Adam(0.8, 0.95, 1e-4)
    theirs = run_optimizer(lambda p: torch.optim.Adam(p, betas=(0.8, 0.95), eps=1e-4), start, gradients)
    assert (run_ours(rule, start, gradients)[0] - theirs[0]).abs().max() > 1e-3


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_apply_does_not_change_its_arguments(rule):
    omega, gradient, *buffers = draw(2, 2 + rule.buffer_count)
    buffers = tuple(buffer.abs() for buffer in buffers)
    copies = [tensor.clone() for tensor in (omega, gradient, *buffers)]
    rule.apply(omega, buffers, gradient, sizes()[2])
    assert all(map(torch.equal, (omega, gradient, *buffers), copies))


def adjoint_problem(rule, size: StepSize):
    """Return inputs (omega, *buffers, gradient), cotangents of the outputs, and ours of the inputs."""
    omega, gradient, omega_bar, *rest = draw(3, 3 + 2 * rule.buffer_count)
    buffers, buffers_bar = tuple(rest[: rule.buffer_count]), tuple(rest[rule.buffer_count :])
    if isinstance(rule, Adam):
        buffers = (buffers[0], buffers[1].square())
    elif isinstance(rule, Adagrad):
        buffers = (buffers[0].square(),)
    found = rule.adjoint(omega, buffers, gradient, size, omega_bar, buffers_bar)
    ours = (found[0], *found[1], found[2])
    return (omega, *buffers, gradient), (omega_bar, *buffers_bar), ours


@pytest.mark.parametrize("size", [StepSize(0.3, 0.3, 1), StepSize(0.2, 0.5, 4), StepSize(0.2, 0.0, 9)])
@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_adjoint_against_autograd(rule, size):
    inputs, cotangents, ours = adjoint_problem(rule, size)
    leaves = [tensor.clone().requires_grad_() for tensor in inputs]
    omega, buffers = differentiable_rule(rule, leaves[0], leaves[1:-1], leaves[-1], size)
    expected = torch.autograd.grad((omega, *buffers), leaves, grad_outputs=cotangents, allow_unused=True)
    for found, wanted in zip(ours, expected, strict=True):
        wanted = torch.zeros_like(found) if wanted is None else wanted
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_adjoint_against_differences_of_the_real_update(rule):
    size = StepSize(0.2, 0.5, 4)
    inputs, cotangents, ours = adjoint_problem(rule, size)
    directions = draw(4, len(inputs))

    def paired(distance: float) -> float:
        omega, *buffers, gradient = (x + distance * d for x, d in zip(inputs, directions, strict=True))
        moved, state = rule.apply(omega, tuple(buffers), gradient, size)
        return sum(float(torch.dot(a, b)) for a, b in zip((moved, *state), cotangents, strict=True))

    slope = sum(float(torch.dot(a, b)) for a, b in zip(ours, directions, strict=True))
    assert slope == pytest.approx(five_point_slope(paired, 1e-4), rel=1e-8)
    assert slope != pytest.approx(1.01 * five_point_slope(paired, 1e-4), rel=1e-3)


def test_adam_adjoint_where_a_parameter_was_never_reached():
    rule, size, zeros = Adam(0.8, 0.95, 1e-2), StepSize(0.2, 0.2, 3), torch.zeros(SIZE, dtype=torch.float64)
    omega, omega_bar = draw(5, 2)
    found = rule.adjoint(omega, (zeros, zeros), zeros, size, omega_bar, (zeros, zeros))
    assert all(bool(torch.isfinite(part).all()) for part in (found[0], *found[1], found[2]))
    # The slope at a gradient of exactly 0 is the one through m', because m' / (sqrt(v') + eps) ~ m' / eps there.
    tiny = 1e-12
    moved = rule.apply(omega, (zeros, zeros), zeros + tiny, size)[0] - omega
    torch.testing.assert_close(found[2], omega_bar * moved / tiny, rtol=1e-4, atol=1e-12)


def test_adagrad_adjoint_where_a_parameter_was_never_reached():
    rule, size, zeros = Adagrad(eps=1e-2), StepSize(0.2, 0.2, 3), torch.zeros(SIZE, dtype=torch.float64)
    omega, omega_bar, square_bar = draw(5, 3)
    found = rule.adjoint(omega, (zeros,), zeros, size, omega_bar, (square_bar,))
    assert torch.equal(found[0], omega_bar)
    assert torch.equal(found[1][0], square_bar)
    tiny = 1e-12
    moved = rule.apply(omega, (zeros,), zeros + tiny, size)[0] - omega
    torch.testing.assert_close(found[2], omega_bar * moved / tiny, rtol=1e-4, atol=1e-12)
    # control: for a parameter reached before, the slope is another finite number
    reached = rule.adjoint(omega, (zeros + 1.0,), zeros, size, omega_bar, (square_bar,))
    torch.testing.assert_close(reached[2], omega_bar * (-0.2 / 1.01), rtol=1e-12, atol=0)


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_adagrad_adjoint_is_finite_with_the_eps_of_fairseq(weight_decay):
    rule, zeros = Adagrad(weight_decay), torch.zeros(SIZE, dtype=torch.float64)
    omega, omega_bar, square_bar = draw(5, 3)
    found = rule.adjoint(omega, (zeros,), zeros, StepSize(0.2, 0.2, 1), omega_bar, (square_bar,))
    assert all(bool(torch.isfinite(part).all()) for part in (found[0], *found[1], found[2]))


@pytest.mark.parametrize("max_norm", [0.0, 0.5, 1e3])
def test_clipping_forward(max_norm):
    (gradient,) = draw(6, 1)
    clipped = Clipping(max_norm).apply(gradient)
    parameter = torch.nn.Parameter(torch.zeros(SIZE, dtype=torch.float64))
    parameter.grad = gradient.clone()
    if max_norm > 0:
        torch.nn.utils.clip_grad_norm_([parameter], max_norm)
    torch.testing.assert_close(clipped, parameter.grad, rtol=1e-14, atol=0)
    assert torch.equal(clipped, gradient) == (max_norm != 0.5)


@pytest.mark.parametrize("sizes", [(), (SIZE,), (1, 4, 2)])
@pytest.mark.parametrize("max_norm", [0.0, 0.5, 1e3])
def test_clipping_adjoint(max_norm, sizes):
    gradient, clipped_bar, direction = draw(7, 3)
    clipping, leaf = Clipping(max_norm, sizes), gradient.clone().requires_grad_()
    found = clipping.adjoint(gradient, clipped_bar)
    clipped = differentiable_clipping(leaf, max_norm) * 1.0
    expected = torch.autograd.grad(clipped, leaf, grad_outputs=clipped_bar)[0]
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)
    slope = five_point_slope(lambda h: float(clipping.apply(gradient + h * direction) @ clipped_bar), 1e-3)
    assert float(found @ direction) == pytest.approx(slope, rel=1e-8)


def test_clipping_control_the_factor_alone_is_not_the_adjoint():
    gradient, clipped_bar = draw(7, 2)
    factor = 0.5 / (float(gradient.norm()) + 1e-6)
    found = Clipping(0.5).adjoint(gradient, clipped_bar)
    assert (found - factor * clipped_bar).norm() > 0.01 * found.norm()
    # a clipped gradient has a fixed norm: the cotangent along the gradient is 0 (except for the 1e-6)
    assert abs(float(found @ gradient)) < 1e-5


def test_clipping_of_a_zero_gradient():
    zeros, (bar,) = torch.zeros(SIZE, dtype=torch.float64), draw(8, 1)
    assert torch.equal(Clipping(0.1).apply(zeros), zeros)
    assert torch.equal(Clipping(0.1).adjoint(zeros, bar), bar)


PARAMETER_SIZES = (1, 33, 127, 3, 1025, 17)


def clipped_by_fairseq(gradient: torch.Tensor, max_norm: float) -> torch.Tensor:
    """Return a float32 gradient (n,) clipped by fairseq, for parameters of `PARAMETER_SIZES`."""
    parameters = [torch.nn.Parameter(torch.zeros(size)) for size in PARAMETER_SIZES]
    for parameter, part in zip(parameters, gradient.split(PARAMETER_SIZES), strict=True):
        parameter.grad = part.clone()
    pytest.importorskip("fairseq.utils").clip_grad_norm_(parameters, max_norm)
    return torch.cat([parameter.grad for parameter in parameters])


@pytest.mark.filterwarnings("ignore:amp_C fused kernels unavailable")
@pytest.mark.parametrize("max_norm", [0.1, 30.0, 1e3])
def test_clipping_by_parameter_equals_that_of_fairseq_to_the_bit(max_norm):
    generator = torch.Generator().manual_seed(9)
    gradients = [torch.randn(sum(PARAMETER_SIZES), generator=generator) for _ in range(20)]
    expected = [clipped_by_fairseq(gradient, max_norm) for gradient in gradients]
    ours, whole = (
        [Clipping(max_norm, sizes).apply(gradient) for gradient in gradients] for sizes in (PARAMETER_SIZES, ())
    )
    assert all(map(torch.equal, ours, expected))
    # controls: the norm of the whole vector has another rounding; a maximum above the norm has no effect
    is_active = max_norm < 1e3
    assert all(map(torch.equal, whole, expected)) != is_active
    assert all(map(torch.equal, gradients, expected)) != is_active
