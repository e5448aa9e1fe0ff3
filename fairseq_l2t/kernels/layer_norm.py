"""Layer normalisation (Ba et al. 2016) with a compact second gradient; value and gradient are PyTorch's kernels.

With ``n = (x - mean) r``, r the inverse of the standard deviation, ``<a, b>`` the mean of ``a b`` over a row, and
``P(a) = r (a - <a, 1> - n <a, n>)``, the gradient at ``y = n w + b`` for the cotangent u of y is

    for x: P(u w)        for w: sum u n        for b: sum u        (sums over rows).

With (v, v_w, v_b) the cotangents of these, n moves by ``n' = P(v)`` and r by ``-r^2 <v, n>``, and the second
gradient is

    for u:  n' w + n v_w + v_b
    for x:  P(u v_w) - r (<u w, n> n' + <u w, n'> n + <v, n> P(u w))
    for w:  sum u n'.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["fused_layer_norm"]

_DTYPES = (torch.float32, torch.float64)


class _LayerNorm(torch.autograd.Function):
    """See `fused_layer_norm`; rows (rows, width)."""

    @staticmethod
    def forward(ctx, rows, weight, bias, eps):
        outputs, mean, scale = torch.native_layer_norm(rows, weight.shape, weight, bias, eps)
        ctx.save_for_backward(mean, scale, rows, weight, bias)
        return outputs

    @staticmethod
    def backward(ctx, cotangent):
        return (*_LayerNormGradient.apply(cotangent, *ctx.saved_tensors), None)


class _LayerNormGradient(torch.autograd.Function):
    """The gradient of `_LayerNorm` as a function of cotangent and inputs."""

    @staticmethod
    def forward(ctx, cotangent, mean, scale, rows, weight, bias):
        found = torch.ops.aten.native_layer_norm_backward(
            cotangent, rows, weight.shape, mean, scale, weight, bias, (True, True, True)
        )
        # An alias without history: saving the output itself would ask for its gradient.
        ctx.save_for_backward(cotangent, mean, scale, rows, weight, found[0].detach())
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx, v_rows, v_weight, v_bias):
        cotangent, mean, scale, rows, weight, gradient = ctx.saved_tensors

        def projected(values: Tensor) -> Tensor:
            return torch.ops.aten.native_layer_norm_backward(
                values, rows, weight.shape, mean, scale, None, None, (True, False, False)
            )[0]

        normal, moved, weighted = (rows - mean).mul_(scale), projected(v_rows), cotangent * weight
        outputs = torch.addcmul(v_bias, normal, v_weight).addcmul_(moved, weight)
        factor = -scale / rows.shape[1]
        found = projected(cotangent * v_weight)
        found.addcmul_(moved, torch.linalg.vecdot(weighted, normal).unsqueeze(1) * factor)
        found.addcmul_(normal, torch.linalg.vecdot(weighted, moved).unsqueeze(1) * factor)
        found.addcmul_(gradient, torch.linalg.vecdot(v_rows, normal).unsqueeze(1) * factor)
        return outputs, None, None, found, moved.mul_(cotangent).sum(0), None


def fused_layer_norm(stock):
    """Return a stand-in for ``torch.nn.functional.layer_norm``, which is passed as ``stock``.

    It takes over where derivatives are recorded, over one dimension with weight and bias, in float32 and float64.
    """

    def layer_norm(inputs: Tensor, normalized_shape, weight=None, bias=None, eps: float = 1e-5) -> Tensor:
        plain = weight is not None and bias is not None and weight.dim() == 1 and inputs.dtype in _DTYPES
        if not (plain and torch.is_grad_enabled() and inputs.dtype == weight.dtype):
            return stock(inputs, normalized_shape, weight, bias, eps)
        return _LayerNorm.apply(inputs.reshape(-1, len(weight)), weight, bias, eps).view(inputs.shape)

    return layer_norm
