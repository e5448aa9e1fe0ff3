"""Stores for the vectors of saved updates: device memory, host memory, a file."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

__all__ = ["LARGE_BLOCK", "PLACES", "DeviceStore", "FileStore", "HostStore", "VectorStore"]

PLACES = ("device", "host", "file")

LARGE_BLOCK = 2**25
"""Bytes from which on glibc gives a block pages of its own, whatever was freed before (DEFAULT_MMAP_THRESHOLD_MAX)."""

_SMALL = 2**20
"""Bytes of a state whose holes nobody need care about."""


class VectorStore(Protocol):
    """Where vectors wait for the sweep."""

    on_device: bool
    """Whether they stand in the memory of the student's own device."""

    def put(self, vectors: tuple[Tensor, ...], *, owned: bool = False) -> object:
        """Keep a copy of ``vectors`` and return a handle; ``owned``: nobody else will change them."""

    def get(self, handle: object) -> tuple[Tensor, ...]:
        """Return the vectors on the device they came from; they must not be changed."""

    def drop(self, handle: object) -> None:
        """Forget the vectors."""


class DeviceStore:
    """Vectors stay where they are.

    Copies stand in rows of large blocks, outside a CPU's heap, and a row that was dropped is used again: taking and
    freeing them leaves no holes there (`unroll.memory.packing` has the larger cause of holes).
    """

    on_device = True

    def __init__(self) -> None:
        self._free: dict[tuple, list[Tensor]] = {}

    def put(self, vectors: tuple[Tensor, ...], *, owned: bool = False) -> tuple[Tensor, ...] | Tensor:
        """See `VectorStore.put`; the handle is the vectors. All ``vectors`` are of one length and dtype."""
        if owned:
            return vectors
        free = self._free.setdefault((len(vectors), len(vectors[0]), vectors[0].dtype, vectors[0].device), [])
        if not free:
            free.extend(_rows(vectors))
        row = free.pop()
        torch.stack(vectors, out=row)
        return row

    def get(self, handle: tuple[Tensor, ...] | Tensor) -> tuple[Tensor, ...]:
        """See `VectorStore.get`."""
        return tuple(handle)

    def drop(self, handle: tuple[Tensor, ...] | Tensor) -> None:
        """See `VectorStore.drop`: a row is used again; of owned vectors the handle held the only reference."""
        if isinstance(handle, Tensor):
            self._free[(*handle.shape, handle.dtype, handle.device)].append(handle)


def _rows(vectors: tuple[Tensor, ...]) -> Iterable[Tensor]:
    """Return new places for ``vectors``: several on a CPU, where a page takes no memory before it is written to; a
    GPU's allocator has blocks of its own."""
    size = sum(vector.nbytes for vector in vectors)
    count = 1 if vectors[0].is_cuda or size < _SMALL else -(-LARGE_BLOCK // size)
    return vectors[0].new_empty(count, len(vectors), len(vectors[0])).unbind()


@dataclass(frozen=True)
class _Place:
    """Where vectors (n,) of a file begin, and what they are."""

    offset: int
    length: int
    dtype: torch.dtype
    device: torch.device
    count: int

    @property
    def size(self) -> int:
        return self.count * self.length * self.dtype.itemsize


class HostStore(VectorStore):
    """Vectors of a GPU wait in (pinned) host memory."""

    on_device = False

    def put(self, vectors: tuple[Tensor, ...], *, owned: bool = False) -> tuple[torch.device, tuple[Tensor, ...]]:
        """See `unroll.memory.plan.VectorStore.put`."""
        copies = tuple(torch.empty_like(v, device="cpu", pin_memory=v.is_cuda).copy_(v) for v in vectors)
        return vectors[0].device, copies

    def get(self, handle: tuple[torch.device, tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        """See `unroll.memory.plan.VectorStore.get`."""
        device, copies = handle
        return tuple(copy.to(device, non_blocking=True) for copy in copies)

    def drop(self, handle: tuple[torch.device, tuple[Tensor, ...]]) -> None:
        """The handle held the only reference."""


class FileStore(VectorStore):
    """Vectors wait in an unnamed file, which the operating system removes with the process, however it ends.

    Args:
        folder: where the file is.
    """

    on_device = False

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = tempfile.TemporaryFile(dir=folder, prefix=".steps-")  # noqa: SIM115  lives as long as the window
        self._end = 0
        self._free: dict[int, list[int]] = {}

    def put(self, vectors: tuple[Tensor, ...], *, owned: bool = False) -> _Place:
        """See `unroll.memory.plan.VectorStore.put`; all ``vectors`` are of one length and dtype.

        Raises:
            OSError: the disk is full; names the folder.
        """
        first = vectors[0]
        size = sum(vector.nbytes for vector in vectors)
        free = self._free.get(size)
        offset = free.pop() if free else self._end
        try:
            end = offset
            for vector in vectors:
                end = self._write(vector, end)
        except OSError as error:
            raise OSError(error.errno, f"--keep-steps-in file: {error.strerror}", str(self._folder)) from error
        self._end = max(self._end, end)
        return _Place(offset, len(first), first.dtype, first.device, len(vectors))

    def get(self, handle: _Place) -> tuple[Tensor, ...]:
        """See `unroll.memory.plan.VectorStore.get`."""
        vectors = torch.empty(handle.count, handle.length, dtype=handle.dtype)
        self._read(vectors, handle.offset)
        return tuple(vectors.to(handle.device))

    def drop(self, handle: _Place) -> None:
        """See `unroll.memory.plan.VectorStore.drop`: the place is used again."""
        self._free.setdefault(handle.size, []).append(handle.offset)

    def _write(self, vector: Tensor, place: int) -> int:
        view = memoryview(vector.detach().cpu().contiguous().numpy()).cast("B")
        while view:  # one call writes at most 2 GiB
            done = os.pwrite(self._file.fileno(), view, place)
            view, place = view[done:], place + done
        return place

    def _read(self, vector: Tensor, place: int) -> None:
        view = memoryview(vector.flatten().numpy()).cast("B")
        while view:
            done = os.preadv(self._file.fileno(), [view], place)
            if not done:
                raise OSError(f"--keep-steps-in file: {self._folder}: the file of kept steps ends before its vectors")
            view, place = view[done:], place + done
