"""Layer normalisation (Ba et al. 2016) with a compact second gradient; PyTorch's kernels compute value and gradient.

With ``n = (x - mean) r``, r the inverse of the standard deviation, ``<a, b>`` the mean of ``a b`` over a row, and
``P(a) = r (a - <a, 1> - n <a, n>)``, the gradient at ``y = n w + b`` for the cotangent u of y is

    for x: P(u w)        for w: sum u n        for b: sum u        (sums over rows).

With (v, v_w, v_b) the cotangents of these, the tangent of n is ``n' = P(v)``, that of r is ``-r^2 <v, n>``, and the
second gradient is

    for u:  n' w + n v_w + v_b
    for x:  P(u v_w) - r (<u w, n> n' + <u w, n'> n + <v, n> P(u w))
    for w:  sum u n'.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["LayerNormFunction", "fused_layer_norm"]

FUSED_DTYPES = (torch.float32, torch.float64)


class _LayerNorm(torch.autograd.Function):
    """See `fused_layer_norm`; rows (rows, width)."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        outputs, mean, scale = torch.native_layer_norm(rows, weight.shape, weight, bias, eps)
        ctx.save_for_backward(mean, scale, rows, weight, bias)
        return outputs

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
        return (*_layer_norm_gradient(cotangent, *ctx.saved_tensors), None)


class _LayerNormGradient(torch.autograd.Function):
    """The gradient of `_LayerNorm` as a function of cotangent and inputs."""

    @staticmethod
    def forward(
        ctx: Any, cotangent: Tensor, mean: Tensor, scale: Tensor, rows: Tensor, weight: Tensor, bias: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        found: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.native_layer_norm_backward(
            cotangent, rows, weight.shape, mean, scale, weight, bias, (True, True, True)
        )
        # An alias without history, because saving the output itself would request its gradient.
        ctx.save_for_backward(cotangent, mean, scale, rows, weight, found[0].detach())
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v_rows: Tensor, v_weight: Tensor, v_bias: Tensor) -> tuple[Tensor | None, ...]:
        cotangent, mean, scale, rows, weight, gradient = ctx.saved_tensors

        def projected(values: Tensor) -> Tensor:
            gradients: tuple[Tensor, ...] = torch.ops.aten.native_layer_norm_backward(
                values, rows, weight.shape, mean, scale, None, None, (True, False, False)
            )
            return gradients[0]

        normal, moved, weighted = (rows - mean).mul_(scale), projected(v_rows), cotangent * weight
        outputs = torch.addcmul(v_bias, normal, v_weight).addcmul_(moved, weight)
        factor = -scale / rows.shape[1]
        found = projected(cotangent * v_weight)
        found.addcmul_(moved, torch.linalg.vecdot(weighted, normal).unsqueeze(1) * factor)
        found.addcmul_(normal, torch.linalg.vecdot(weighted, moved).unsqueeze(1) * factor)
        found.addcmul_(gradient, torch.linalg.vecdot(v_rows, normal).unsqueeze(1) * factor)
        return outputs, None, None, found, moved.mul_(cotangent).sum(0), None


_layer_norm: Callable[[Tensor, Tensor, Tensor, float], Tensor] = _LayerNorm.apply
_layer_norm_gradient: Callable[..., tuple[Tensor, ...]] = _LayerNormGradient.apply


class LayerNormFunction(Protocol):
    """The signature of ``torch.nn.functional.layer_norm``."""

    def __call__(
        self,
        inputs: Tensor,
        normalized_shape: Sequence[int],
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        eps: float = 1e-5,
        /,
    ) -> Tensor: ...


def fused_layer_norm(stock: LayerNormFunction) -> LayerNormFunction:
    """Return a replacement for ``torch.nn.functional.layer_norm``, which is passed as ``stock``.

    The replacement is used while derivatives are recorded, over one dimension with weight and bias, in float32 and
    float64; otherwise it calls ``stock``.
    """

    def layer_norm(
        inputs: Tensor,
        normalized_shape: Sequence[int],
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        eps: float = 1e-5,
    ) -> Tensor:
        if weight is None or bias is None or weight.dim() != 1:
            return stock(inputs, normalized_shape, weight, bias, eps)
        fused = inputs.dtype in FUSED_DTYPES and inputs.dtype == weight.dtype and torch.is_grad_enabled()
        if not fused:
            return stock(inputs, normalized_shape, weight, bias, eps)
        return _layer_norm(inputs.reshape(-1, len(weight)), weight, bias, eps).view(inputs.shape)

    return layer_norm
