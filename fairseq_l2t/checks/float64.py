"""Keep a computation in float64 through code that casts to float32 in passing.

fairseq writes ``F.softmax(x, dim, dtype=torch.float32)`` and ``x.float()`` to protect half-precision models; in a
float64 check of gradients those casts cost eight digits.
"""

from __future__ import annotations

import torch
from torch.overrides import TorchFunctionMode

__all__ = ["KeepFloat64"]

_SOFTMAXES = (torch.nn.functional.softmax, torch.nn.functional.log_softmax)


class KeepFloat64(TorchFunctionMode):
    """Inside, ``Tensor.float()`` and the ``dtype`` of (log-)softmax leave float64 tensors in float64."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if args and isinstance(args[0], torch.Tensor) and args[0].dtype == torch.float64:
            if function is torch.Tensor.float:
                return args[0]
            if function in _SOFTMAXES and kwargs.get("dtype") == torch.float32:
                kwargs = {**kwargs, "dtype": torch.float64}
        return function(*args, **kwargs)
