"""Batches of many updates, copied into a few large blocks.

A window keeps the batch of every update. Its tensors are small and were made among the large ones of other updates:
where those are freed, small ones stay, and nothing large fits in between any more. Over 2,000 updates of fconv with
700 tokens each the heap of a CPU grew to 730 MiB that way, of which 220 were in use (glibc's own ``mallinfo2``, read
beside one window; with a packer: 224 and 201).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["Packer", "bytes_within"]

_ALIGNMENT = 64
"""Bytes; that of PyTorch's own blocks."""


@dataclass(frozen=True)
class _Place:
    """Where a tensor stands."""

    block: int
    offset: int
    dtype: torch.dtype
    shape: tuple[int, ...]


class Packer:
    """Keeps copies of the CPU tensors in nested lists, tuples and dicts; everything else is kept as it is.

    Args:
        block: bytes of a block; a tensor that is larger gets one of its own.
    """

    def __init__(self, block: int) -> None:
        self._size = block
        self._blocks: list[Tensor] = []
        self._end = 0

    def pack(self, value: Any) -> Any:
        """Return ``value`` with places instead of CPU tensors, for `unpack`."""
        return _mapped(value, lambda leaf: self._put(leaf) if _is_packed(leaf) else leaf)

    def unpack(self, value: Any) -> Any:
        """Return what was given to `pack`; tensors are contiguous, and must not be changed."""
        return _mapped(value, lambda leaf: self._get(leaf) if isinstance(leaf, _Place) else leaf)

    def _put(self, tensor: Tensor) -> _Place:
        start = -(-self._end // _ALIGNMENT) * _ALIGNMENT
        if not self._blocks or start + tensor.nbytes > len(self._blocks[-1]):
            self._blocks.append(torch.empty(max(self._size, tensor.nbytes), dtype=torch.uint8))
            start = 0
        self._end = start + tensor.nbytes
        place = _Place(len(self._blocks) - 1, start, tensor.dtype, tuple(tensor.shape))
        self._get(place).copy_(tensor)
        return place

    def _get(self, place: _Place) -> Tensor:
        size = math.prod(place.shape) * place.dtype.itemsize
        flat = self._blocks[place.block][place.offset : place.offset + size]
        return flat.view(place.dtype).view(place.shape)


def bytes_within(value: Any) -> int:
    """Return the bytes of all tensors in nested lists, tuples and dicts."""
    total = 0

    def count(leaf: Any) -> None:
        nonlocal total
        total += leaf.nbytes if isinstance(leaf, Tensor) else 0

    _mapped(value, count)
    return total


def _is_packed(leaf: Any) -> bool:
    # Strided tensors of the CPU alone: other kinds, and a GPU's, stand elsewhere.
    plain = type(leaf) is Tensor and leaf.device.type == "cpu" and leaf.layout == torch.strided
    return plain and not leaf.requires_grad


def _mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    """Return ``value`` with ``change`` applied to its leaves; subclasses of list, tuple and dict are leaves."""
    if type(value) is dict:
        return {key: _mapped(part, change) for key, part in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_mapped(part, change) for part in value)
    return change(value)
