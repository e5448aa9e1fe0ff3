"""One flat vector for all parameters of a module, which are views of it.

A copy of a student is then one copy of a vector, and an update rule or adjoint takes one operation per vector instead
of one per parameter.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

__all__ = ["FlatParameters"]


class FlatParameters:
    """A flat buffer (n,) and the parameters stored in it.

    Args:
        named_parameters: the parameters, each once, in the order they have in the vector. Their ``data`` becomes views
            of the buffer.

    Raises:
        ValueError: no parameters, or parameters of more than one dtype.
    """

    def __init__(self, named_parameters: Iterable[tuple[str, nn.Parameter]]) -> None:
        named = list(named_parameters)
        if not named:
            raise ValueError("parameters: none; expected at least one that the loss reaches")
        dtypes = {parameter.dtype for _, parameter in named}
        if len(dtypes) > 1:
            raise ValueError(f"parameters: dtypes {sorted(map(str, dtypes))}; expected one")
        self.names = tuple(name for name, _ in named)
        self.parameters = tuple(parameter for _, parameter in named)
        self.sizes = tuple(parameter.numel() for parameter in self.parameters)
        self._shapes = [parameter.shape for parameter in self.parameters]
        self.buffer = torch.cat([parameter.detach().reshape(-1) for parameter in self.parameters])
        for parameter, view in zip(self.parameters, self.split(self.buffer), strict=True):
            parameter.data = view

    def __len__(self) -> int:
        return self.buffer.numel()

    def set(self, vector: Tensor) -> None:
        """Write ``vector`` (n,), of any floating dtype, into the parameters."""
        with torch.no_grad():
            self.buffer.copy_(vector)

    def split(self, vector: Tensor) -> list[Tensor]:
        """Return views of ``vector`` (n,) in the shapes of the parameters."""
        parts = vector.split_with_sizes(self.sizes)
        return [part.view(shape) for part, shape in zip(parts, self._shapes, strict=True)]

    def gather(self, tensors: Sequence[Tensor | None]) -> Tensor:
        """Return one vector (n,) from one tensor per parameter; None stands for zeros."""
        parts = [
            parameter.new_zeros(size) if tensor is None else tensor.reshape(-1)
            for tensor, parameter, size in zip(tensors, self.parameters, self.sizes, strict=True)
        ]
        return torch.cat(parts)

    def first_bad(self, vector: Tensor) -> str | None:
        """Return the name of the first parameter whose part of ``vector`` (n,) holds NaN or infinity, or None."""
        for name, part in zip(self.names, self.split(vector), strict=True):
            if not bool(torch.isfinite(part).all()):
                return name
        return None
