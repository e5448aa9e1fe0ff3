"""Stores for the vectors of saved updates: device memory, host memory, a file."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeAlias, TypeVar

import torch
from torch import Tensor

__all__ = ["LARGE_BLOCK_BYTES", "PLACES", "DeviceStore", "FileStore", "HostStore", "VectorStore"]

PLACES = ("device", "host", "file")
"""Values of ``--keep-steps-in``."""

LARGE_BLOCK_BYTES = 2**25
"""Size from which glibc maps a block to pages of its own (DEFAULT_MMAP_THRESHOLD_MAX)."""

SMALL_SNAPSHOT_BYTES = 2**20
"""Size below which the holes that a snapshot leaves in the heap do not matter."""

Handle = TypeVar("Handle")


class VectorStore(Protocol[Handle]):
    """A place for vectors between the unroll and the sweep."""

    @property
    def on_device(self) -> bool:
        """Whether the vectors lie in the memory of the student's own device."""

    def put(self, vectors: tuple[Tensor, ...], *, owned: bool = False) -> Handle:
        """Save a copy of ``vectors``, (n,) each, and return a handle.

        ``owned``: nothing else changes the vectors, so that a store on the device needs no copy.
        """

    def get(self, handle: Handle) -> tuple[Tensor, ...]:
        """Return the vectors on the device they came from. The caller must not change them."""

    def drop(self, handle: Handle) -> None:
        """Release the vectors."""


DeviceHandle: TypeAlias = tuple[Tensor, ...] | Tensor
"""Owned vectors (n,) themselves, or one row (vectors, n) of a block."""

RowKind: TypeAlias = tuple[int, int, torch.dtype, torch.device]
"""Number of vectors, their length, dtype and device: rows of one kind replace each other."""


class DeviceStore:
    """Vectors on the student's own device.

    Copies are rows of large blocks, outside a CPU's heap, and a dropped row is used again. Allocation and release of
    rows therefore leave no holes in the heap (`unroll.memory.packing` removes the larger cause of holes).
    """

    on_device = True

    def __init__(self) -> None:
        self._free: dict[RowKind, list[Tensor]] = {}

    def put(self, vectors: tuple[Tensor, ...], *, owned: bool = False) -> DeviceHandle:
        """See `VectorStore.put`; the handle is the vectors. All ``vectors`` have one length and dtype."""
        if owned:
            return vectors
        free = self._free.setdefault((len(vectors), len(vectors[0]), vectors[0].dtype, vectors[0].device), [])
        if not free:
            free.extend(_new_rows(vectors))
        row = free.pop()
        torch.stack(vectors, out=row)
        return row

    def get(self, handle: DeviceHandle) -> tuple[Tensor, ...]:
        """See `VectorStore.get`."""
        return tuple(handle)

    def drop(self, handle: DeviceHandle) -> None:
        """See `VectorStore.drop`: a row is used again; owned vectors have no other reference than the handle."""
        if isinstance(handle, Tensor):
            count, length = handle.shape
            self._free[(count, length, handle.dtype, handle.device)].append(handle)


def _new_rows(vectors: tuple[Tensor, ...]) -> Iterable[Tensor]:
    """Return new rows (vectors, n), one or more.

    A CPU gets several at a time, because its pages take no memory before the first write. A GPU gets one, because its
    allocator has blocks of its own.
    """
    size = sum(vector.nbytes for vector in vectors)
    count = 1 if vectors[0].is_cuda or size < SMALL_SNAPSHOT_BYTES else -(-LARGE_BLOCK_BYTES // size)
    return vectors[0].new_empty(count, len(vectors), len(vectors[0])).unbind()


HostHandle: TypeAlias = tuple[torch.device, tuple[Tensor, ...]]


class HostStore:
    """Vectors of a GPU in host memory, which is pinned."""

    on_device = False

    def put(self, vectors: tuple[Tensor, ...], *, owned: bool = False) -> HostHandle:
        """See `VectorStore.put`."""
        copies = tuple(torch.empty_like(v, device="cpu", pin_memory=v.is_cuda).copy_(v) for v in vectors)
        return vectors[0].device, copies

    def get(self, handle: HostHandle) -> tuple[Tensor, ...]:
        """See `VectorStore.get`."""
        device, copies = handle
        return tuple(copy.to(device, non_blocking=True) for copy in copies)

    def drop(self, handle: HostHandle) -> None:
        """See `VectorStore.drop`; the handle is the only reference."""


@dataclass(frozen=True)
class FilePlace:
    """Position of vectors in a file.

    Args:
        offset: byte at which the first vector begins.
        length, dtype, device: n, dtype and original device of each vector.
        count: number of vectors.
    """

    offset: int
    length: int
    dtype: torch.dtype
    device: torch.device
    count: int

    @property
    def size(self) -> int:
        """Bytes of all vectors."""
        return self.count * self.length * self.dtype.itemsize


class FileStore:
    """Vectors in a file without a name, which the operating system removes when the process ends.

    Args:
        folder: folder of the file.
    """

    on_device = False

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file = tempfile.TemporaryFile(dir=folder, prefix=".steps-")  # noqa: SIM115  open as long as the window
        self._end = 0
        self._free: dict[int, list[int]] = {}

    def put(self, vectors: tuple[Tensor, ...], *, owned: bool = False) -> FilePlace:
        """See `VectorStore.put`; all ``vectors`` have one length and dtype.

        Raises:
            OSError: the disk is full; the message names the folder.
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
        return FilePlace(offset, len(first), first.dtype, first.device, len(vectors))

    def get(self, handle: FilePlace) -> tuple[Tensor, ...]:
        """See `VectorStore.get`.

        Raises:
            OSError: the file is shorter than its vectors.
        """
        vectors = torch.empty(handle.count, handle.length, dtype=handle.dtype)
        self._read(vectors, handle.offset)
        return tuple(vectors.to(handle.device))

    def drop(self, handle: FilePlace) -> None:
        """See `VectorStore.drop`: the place is used again."""
        self._free.setdefault(handle.size, []).append(handle.offset)

    def _write(self, vector: Tensor, offset: int) -> int:
        """Write ``vector`` (n,) at ``offset``; return the offset after it."""
        view = vector.detach().cpu().contiguous().numpy().data.cast("B")
        while view:  # one call writes at most 2 GiB
            done = os.pwrite(self._file.fileno(), view, offset)
            view, offset = view[done:], offset + done
        return offset

    def _read(self, vectors: Tensor, offset: int) -> None:
        """Fill ``vectors`` (contiguous) from ``offset`` on."""
        view = vectors.flatten().numpy().data.cast("B")
        while view:
            done = os.preadv(self._file.fileno(), [view], offset)
            if not done:
                raise OSError(f"--keep-steps-in file: {self._folder}: the file of kept steps ends before its vectors")
            view, offset = view[done:], offset + done
