"""A context that keeps a computation in float64 despite casts to float32.

fairseq contains ``F.softmax(x, dim, dtype=torch.float32)`` and ``x.float()`` for half-precision models. In a float64
check of gradients these casts lose eight digits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

__all__ = ["KeepFloat64"]

SOFTMAX_FUNCTIONS = (torch.nn.functional.softmax, torch.nn.functional.log_softmax)


class KeepFloat64(TorchFunctionMode):
    """Within the context, ``Tensor.float()`` and the ``dtype`` of (log-)softmax do not change float64 tensors."""

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: tuple[type, ...],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if args and isinstance(args[0], torch.Tensor) and args[0].dtype == torch.float64:
            if function is torch.Tensor.float:
                return args[0]
            if function in SOFTMAX_FUNCTIONS and kwargs.get("dtype") == torch.float32:
                kwargs = {**kwargs, "dtype": torch.float64}
        return function(*args, **kwargs)
