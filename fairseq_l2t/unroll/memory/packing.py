"""Batches of many updates, copied into a few large blocks.

A window saves the batch of every update. The tensors of a batch are small and are made among the large tensors of
other updates. After the large ones are freed, the small ones remain between them, and no large tensor fits into the
gaps. Over 2,000 updates of fconv with 700 tokens each, the heap of a CPU grew to 730 MiB that way, of which 220 were in
use (glibc's own ``mallinfo2``, read during one window; with a packer: 224 and 201).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["Packer", "bytes_within"]

ALIGNMENT_BYTES = 64
"""Alignment of PyTorch's own blocks."""


@dataclass(frozen=True)
class PackedTensor:
    """Position, dtype and shape of a tensor within a packer's blocks; ``offset`` in bytes."""

    block: int
    offset: int
    dtype: torch.dtype
    shape: tuple[int, ...]


class Packer:
    """Copies of the CPU tensors in nested lists, tuples and dicts; other values are kept as they are.

    Args:
        block: bytes of a block; a larger tensor gets a block of its own.
    """

    def __init__(self, block: int) -> None:
        self._size = block
        self._blocks: list[Tensor] = []
        self._end = 0

    def pack(self, value: Any) -> Any:
        """Return ``value`` with `PackedTensor` in place of CPU tensors, for `unpack`."""
        return _mapped(value, lambda leaf: self._put(leaf) if _is_packable(leaf) else leaf)

    def unpack(self, value: Any) -> Any:
        """Return the value given to `pack`. Its tensors are contiguous; the caller must not change them."""
        return _mapped(value, lambda leaf: self._get(leaf) if isinstance(leaf, PackedTensor) else leaf)

    def _put(self, tensor: Tensor) -> PackedTensor:
        start = -(-self._end // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
        if not self._blocks or start + tensor.nbytes > len(self._blocks[-1]):
            self._blocks.append(torch.empty(max(self._size, tensor.nbytes), dtype=torch.uint8))
            start = 0
        self._end = start + tensor.nbytes
        packed = PackedTensor(len(self._blocks) - 1, start, tensor.dtype, tuple(tensor.shape))
        self._get(packed).copy_(tensor)
        return packed

    def _get(self, packed: PackedTensor) -> Tensor:
        size = math.prod(packed.shape) * packed.dtype.itemsize
        flat = self._blocks[packed.block][packed.offset : packed.offset + size]
        return flat.view(packed.dtype).view(packed.shape)


def bytes_within(value: Any) -> int:
    """Return the bytes of all tensors in nested lists, tuples and dicts."""
    total = 0

    def count(leaf: Any) -> None:
        nonlocal total
        total += leaf.nbytes if isinstance(leaf, Tensor) else 0

    _mapped(value, count)
    return total


def _is_packable(leaf: Any) -> bool:
    # Only strided tensors of the CPU: other layouts and a GPU's tensors do not lie in the CPU's heap as plain bytes.
    plain = type(leaf) is Tensor and leaf.device.type == "cpu" and leaf.layout == torch.strided
    return plain and not leaf.requires_grad


def _mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    """Return ``value`` with ``change`` applied to its leaves; subclasses of list, tuple and dict are leaves."""
    if type(value) is dict:
        return {key: _mapped(part, change) for key, part in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_mapped(part, change) for part in value)
    return change(value)
