"""Correct second derivatives for the reverse pass: replacements of PyTorch's operations.

Measured defects (PyTorch 2.13, fairseq 0.12.2), each silent or an error in double backward:

- flash and memory-efficient attention have no second derivative: the MATH kernel is used;
- cuDNN recurrent networks have none either: cuDNN is switched off;
- the fused weight normalisation returns a wrong second derivative: it is composed from differentiable parts;
- with a node that only scales gradients (fairseq's ``GradMultiply``) the update is not the gradient of any scalar;
  double backward through it scales the *forward* path as well. `ScaledGradient` does not;
- an embedding with ``padding_idx`` is such a node for one row: the row's gradient is 0, but padded positions read the
  row. Where it moves, because the output layer shares it, double backward takes it for a constant. `_embedding` does
  not.

LSTMs and layer normalisation have correct but slow second derivatives; nodes with hand-written ones replace them
(`kernels.lstm`, `kernels.layer_norm`).
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from fairseq_l2t.kernels.layer_norm import fused_layer_norm
from fairseq_l2t.kernels.lstm import fused_lstm

__all__ = [
    "VERIFIED_TORCH_MODULES",
    "NotTwiceDifferentiableError",
    "ScaledGradient",
    "attribute_replaced",
    "outer_gradient",
    "refuse_unverified",
    "twice_differentiable",
    "unverified_modules",
    "uses_fused_nodes",
]

VERIFIED_TORCH_MODULES: frozenset[str] = frozenset(
    f"torch.nn.modules.{name}"
    for name in (  # noqa: SIM905  one string is easier to read than a list of strings
        "activation.GELU activation.GLU activation.ReLU activation.Sigmoid activation.Softmax activation.Tanh "
        "container.ModuleDict container.ModuleList container.ParameterList container.Sequential conv.Conv1d "
        "conv.Conv2d dropout.Dropout linear.Identity linear.Linear normalization.LayerNorm rnn.LSTM rnn.LSTMCell "
        "sparse.Embedding"
    ).split()
)
"""torch.nn classes whose double backward is tested here against float64 finite differences."""


_EMBEDDING = nn.functional.embedding
_FUSED_LSTM = fused_lstm(torch._VF.lstm)
_FUSED_LAYER_NORM = fused_layer_norm(nn.functional.layer_norm)


class NotTwiceDifferentiableError(TypeError):
    """The second derivatives of some modules of a student are not verified; the message names the modules."""


class _CurrentPass:
    """The kind of the current gradient. Plain module state, because autograd's threads do not see context variables."""

    outer = False
    fused_contexts = 0
    """Number of open contexts of `twice_differentiable` with hand-written nodes."""


_CURRENT_PASS = _CurrentPass()


@contextmanager
def outer_gradient() -> Iterator[None]:
    """Mark the outer one of two nested gradients, where `ScaledGradient` does not scale cotangents."""
    before, _CURRENT_PASS.outer = _CURRENT_PASS.outer, True
    try:
        yield
    finally:
        _CURRENT_PASS.outer = before


class ScaledGradient(torch.autograd.Function):
    """Identity whose gradient is multiplied by a constant, correct under double backward.

    The update is then ``g = D H`` with D the scaling, and its adjoint is ``J^T v = H D v``. The node scales the inner
    gradient, and this multiplication is differentiated; it does not scale the outer gradient.
    """

    @staticmethod
    def forward(ctx: Any, value: Tensor, scale: float) -> Tensor:
        """Return ``value`` unchanged."""
        ctx.scale = scale
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, None]:
        """Return the cotangent, scaled except within `outer_gradient`."""
        return (cotangent if _CURRENT_PASS.outer else cotangent * ctx.scale), None


class _PaddedEmbedding(torch.autograd.Function):
    """Look up rows; the gradient of the padding row is 0 in the inner gradient only.

    With P the projection that drops the padding row, the update's part is ``P H`` (H the gradient of a scalar), and its
    adjoint is ``J^T v = H' P v``. P belongs to the inner gradient, where it is differentiated with the rest. The outer
    gradient is that of a plain look-up.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, tokens: Tensor, padding: int) -> Tensor:
        """Return the rows (..., width) of ``weight`` (entries, width) at ``tokens`` (...)."""
        ctx.save_for_backward(tokens)
        ctx.entries, ctx.padding = len(weight), padding
        return torch.embedding(weight, tokens)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, None, None]:
        """Return the cotangent of the rows, without that of the padding row except within `outer_gradient`."""
        (tokens,) = ctx.saved_tensors
        left_out = -1 if _CURRENT_PASS.outer else ctx.padding
        found: Tensor = torch.ops.aten.embedding_dense_backward(cotangent, tokens, ctx.entries, left_out, False)
        return found, None, None


_padded_embedding: Callable[[Tensor, Tensor, int], Tensor] = _PaddedEmbedding.apply


def _embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """Replace ``torch.nn.functional.embedding``; arguments and result as there."""
    if padding_idx is None or max_norm is not None or scale_grad_by_freq or sparse:
        return _EMBEDDING(input, weight, padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse)
    return _padded_embedding(weight, input, padding_idx % len(weight))


@contextmanager
def attribute_replaced(owner: object, name: str, value: object) -> Iterator[None]:
    """Set ``owner.name`` to ``value`` during the block; restore the attribute, or the class's method, afterwards."""
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
    """Switch PyTorch's operations to forms with correct second derivatives, for forward and both backward passes.

    ``fused``: also use the hand-written nodes. Without them PyTorch computes the same derivatives more slowly; tests
    compare the two.
    """
    # torch.nn.utils.weight_norm is the function; only an import by path gives the module of that name.
    weight_norm_module = importlib.import_module("torch.nn.utils.weight_norm")
    with ExitStack() as stack:
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        stack.enter_context(attribute_replaced(weight_norm_module, "_weight_norm", _composed_weight_norm))
        stack.enter_context(attribute_replaced(nn.functional, "embedding", _embedding))
        if fused:
            stack.enter_context(attribute_replaced(torch._VF, "lstm", _FUSED_LSTM))
            stack.enter_context(attribute_replaced(nn.functional, "layer_norm", _FUSED_LAYER_NORM))
            stack.enter_context(attribute_replaced(_CURRENT_PASS, "fused_contexts", _CURRENT_PASS.fused_contexts + 1))
        yield


def uses_fused_nodes() -> bool:
    """Return whether the hand-written nodes of `twice_differentiable` are in use."""
    return _CURRENT_PASS.fused_contexts > 0


def unverified_modules(module: nn.Module, verified: Collection[str] = ()) -> list[tuple[str, str]]:
    """Return (path, full class name) of every part of ``module`` whose second derivatives are not verified.

    An embedding whose gradient is not that of a look-up is named with the setting: ``...Embedding:max_norm``.

    Args:
        module: the student's model.
        verified: full class names (``module.ClassName``) accepted in addition to `VERIFIED_TORCH_MODULES`.
    """
    named = [(path or "(the model)", _kind_of(part)) for path, part in module.named_modules()]
    return [(path, name) for path, name in named if name not in VERIFIED_TORCH_MODULES and name not in verified]


def refuse_unverified(module: nn.Module, verified: Collection[str] = ()) -> None:
    """Refuse a student with a module whose second derivatives are not verified; arguments as `unverified_modules`.

    Raises:
        NotTwiceDifferentiableError: the message names every such module and its class.
    """
    unknown = [f"{path} ({name})" for path, name in unverified_modules(module, verified)]
    if unknown:
        raise NotTwiceDifferentiableError("second derivatives are not verified in: " + "; ".join(unknown))


def _kind_of(part: nn.Module) -> str:
    """Return the full class name, for an embedding followed by the settings that change its gradient alone."""
    name = f"{type(part).__module__}.{type(part).__qualname__}"
    settings = ("max_norm", "scale_grad_by_freq", "sparse") if isinstance(part, nn.Embedding) else ()
    return ":".join([name, *(setting for setting in settings if getattr(part, setting))])


def _composed_weight_norm(direction: Tensor, magnitude: Tensor, dim: int) -> Tensor:
    return direction * (magnitude / torch.norm_except_dim(direction, 2, dim))
