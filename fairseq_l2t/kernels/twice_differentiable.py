"""Second derivatives that exist and are right: what must be changed in a module for the reverse pass.

Measured defects (PyTorch 2.13, fairseq 0.12.2), each silent or an error in double backward:

- flash and memory-efficient attention have no second derivative: the MATH kernel is used;
- cuDNN recurrent networks have none either: cuDNN is switched off;
- the fused weight normalisation returns a wrong second derivative: it is composed from differentiable parts;
- a node that only scales gradients (fairseq's ``GradMultiply``) makes the update a vector field that is no
  gradient; double backward through it scales the *forward* path as well. `ScaledGradient` does not.

Right, but slow: LSTMs and layer normalisation are replaced by nodes with hand-written second derivatives
(`kernels.lstm`, `kernels.layer_norm`).
"""

from __future__ import annotations

import importlib
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from fairseq_l2t.kernels.layer_norm import fused_layer_norm
from fairseq_l2t.kernels.lstm import fused_lstm

__all__ = [
    "VOUCHED_TORCH_MODULES",
    "NotTwiceDifferentiableError",
    "ScaledGradient",
    "attribute_replaced",
    "outer_gradient",
    "refuse_unvouched",
    "twice_differentiable",
    "unvouched_modules",
    "uses_fused_nodes",
]

VOUCHED_TORCH_MODULES: frozenset[str] = frozenset(
    f"torch.nn.modules.{name}"
    for name in (  # noqa: SIM905  one name a word reads better
        "activation.GELU activation.GLU activation.ReLU activation.Sigmoid activation.Softmax activation.Tanh "
        "container.ModuleDict container.ModuleList container.ParameterList container.Sequential conv.Conv1d "
        "conv.Conv2d dropout.Dropout linear.Identity linear.Linear normalization.LayerNorm rnn.LSTM rnn.LSTMCell "
        "sparse.Embedding"
    ).split()
)
"""torch.nn classes whose double backward is tested here against float64 finite differences."""


_FUSED_LSTM = fused_lstm(torch._VF.lstm)
_FUSED_LAYER_NORM = fused_layer_norm(nn.functional.layer_norm)


class NotTwiceDifferentiableError(TypeError):
    """A student holds modules whose second derivatives are not known to be right; the message names them."""


class _Pass:
    """Which gradient is being taken now. Plain module state: autograd's device threads see no context variables."""

    outer = False
    fused_contexts = 0
    """Contexts of `twice_differentiable` with hand-written nodes that are open."""


_PASS = _Pass()


@contextmanager
def outer_gradient() -> Iterator[None]:
    """Mark the outer of two gradients: `ScaledGradient` passes cotangents through unscaled."""
    before, _PASS.outer = _PASS.outer, True
    try:
        yield
    finally:
        _PASS.outer = before


class ScaledGradient(torch.autograd.Function):
    """Identity whose gradient is multiplied by a constant, right under double backward.

    The update is then ``g = D H`` with D the scaling. Its adjoint is ``J^T v = H D v``: the node scales while the
    inner gradient is taken, and that multiplication is differentiated, but passes the outer one through.
    """

    @staticmethod
    def forward(ctx, value: Tensor, scale: float) -> Tensor:
        """Return ``value`` unchanged."""
        ctx.scale = scale
        return value.view_as(value)

    @staticmethod
    def backward(ctx, cotangent: Tensor) -> tuple[Tensor, None]:
        """Return the cotangent, scaled unless the outer gradient is being taken."""
        return (cotangent if _PASS.outer else cotangent * ctx.scale), None


@contextmanager
def attribute_replaced(owner: object, name: str, value: object) -> Iterator[None]:
    """Set ``owner.name`` to ``value`` for the duration of the block; a method of the class shows again afterwards."""
    before, is_own = getattr(owner, name), name in vars(owner)
    setattr(owner, name, value)
    try:
        yield
    finally:
        if is_own:
            setattr(owner, name, before)
        else:
            delattr(owner, name)


@contextmanager
def twice_differentiable(*, fused: bool = True) -> Iterator[None]:
    """Switch PyTorch's own blocks to forms with right second derivatives, for forward and both backwards.

    ``fused``: with the hand-written nodes, too. Without them the same derivatives are PyTorch's own, slower: what the
    nodes are compared with.
    """
    # torch.nn.utils.weight_norm is the function; the module of that name must be asked for by path.
    weight_norm_module = importlib.import_module("torch.nn.utils.weight_norm")
    with ExitStack() as stack:
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        stack.enter_context(attribute_replaced(weight_norm_module, "_weight_norm", _composed_weight_norm))
        if fused:
            stack.enter_context(attribute_replaced(torch._VF, "lstm", _FUSED_LSTM))
            stack.enter_context(attribute_replaced(nn.functional, "layer_norm", _FUSED_LAYER_NORM))
            stack.enter_context(attribute_replaced(_PASS, "fused_contexts", _PASS.fused_contexts + 1))
        yield


def uses_fused_nodes() -> bool:
    """Return whether a context of `twice_differentiable` with hand-written nodes is open."""
    return _PASS.fused_contexts > 0


def unvouched_modules(module: nn.Module, vouched: Collection[str] = ()) -> list[tuple[str, str]]:
    """Return (path, full class name) of every part of ``module`` nobody has vouched for.

    Args:
        module: the student's model.
        vouched: full class names (``module.ClassName``) accepted beside `VOUCHED_TORCH_MODULES`.
    """
    named = [
        (path or "(the model)", f"{type(part).__module__}.{type(part).__qualname__}")
        for path, part in module.named_modules()
    ]
    return [(path, name) for path, name in named if name not in VOUCHED_TORCH_MODULES and name not in vouched]


def refuse_unvouched(module: nn.Module, vouched: Collection[str] = ()) -> None:
    """Refuse a student that holds a module nobody has vouched for; arguments as `unvouched_modules`.

    Raises:
        NotTwiceDifferentiableError: names every such module and its class.
    """
    unknown = [f"{path} ({name})" for path, name in unvouched_modules(module, vouched)]
    if unknown:
        raise NotTwiceDifferentiableError("second derivatives are not known to be right through: " + "; ".join(unknown))


def _composed_weight_norm(direction: Tensor, magnitude: Tensor, dim: int) -> Tensor:
    return direction * (magnitude / torch.norm_except_dim(direction, 2, dim))
