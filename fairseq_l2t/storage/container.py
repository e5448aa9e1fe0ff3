"""A safetensors file whose header and tensors have SHA-256 digests, checked when it is read.

Layout (https://huggingface.co/docs/safetensors): 8 bytes of header length, a JSON header, the tensors. The library
checks the structure. It cannot detect a flipped bit inside a tensor, or one that makes another valid header. So the
header's ``__metadata__`` holds one string, ``fairseq_l2t`` (one only: the library writes several in random order). It
is a JSON object with

- ``header_sha256``: digest of length field and header, computed with 64 zeros in place of this digest;
- ``kind`` and ``format_version``: the type of file;
- ``tensor_sha256``: digest of each tensor's bytes, by name;
- ``content``: everything else.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import psutil
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from fairseq_l2t.storage.atomic import write_atomically
from fairseq_l2t.storage.header import Header, HeaderError, TensorEntry, parse_header, sealed_parts

__all__ = ["Container", "ContainerError", "VersionError", "open_container", "write_container"]


class ContainerError(ValueError):
    """A file that cannot be read; the message is one line that begins with its path."""


class VersionError(ContainerError):
    """An undamaged file of another format version."""


@dataclass(frozen=True)
class Container:
    """An open file whose header has been verified; tensors are read on demand.

    Args:
        path: the file.
        size: its size in bytes.
        content: the ``content`` given to `write_container`.
        entries: dtype, shape and position of each tensor, by name.
    """

    path: Path
    size: int
    content: dict[str, Any]
    entries: dict[str, TensorEntry]
    _header: Header
    _file: BinaryIO

    def read(self) -> tuple[dict[str, Tensor], list[str]]:
        """Return the tensors by name, and one line for each tensor whose digest does not match.

        Raises:
            ContainerError: the file changed while it was read or is larger than the free memory, or the library
                refuses it.
        """
        whole = self._whole_file()
        view = memoryview(whole)[len(self._header.raw) :]
        damaged = []
        for name, entry in self.entries.items():
            found = hashlib.sha256(view[entry.begin : entry.end]).hexdigest()
            expected = self._header.tensor_digests.get(name)
            if found != expected:
                damaged.append(f"tensor {name!r} is damaged (SHA-256 {found}; expected {expected!r})")
        try:
            return safetensors.torch.load(whole), damaged
        except safetensors.SafetensorError as error:  # it checks more than `header`, for example further metadata
            raise ContainerError(f"{self.path}: the header is damaged: {error}") from error

    def _whole_file(self) -> bytes:
        free = psutil.virtual_memory().available
        too_large = f"{self.path}: {self.size} bytes; more than the free memory can hold twice ({free} bytes)"
        if 2 * self.size > free:  # compared first: a sparse file of any size takes no disk
            raise ContainerError(too_large)
        self._file.seek(0)
        try:
            whole = self._file.read(self.size)
        except MemoryError as error:  # the process may have less than the machine
            raise ContainerError(too_large) from error
        if len(whole) != self.size or not whole.startswith(self._header.raw):
            raise ContainerError(f"{self.path}: the file changed while it was read")
        return whole


def write_container(
    path: str | os.PathLike[str],
    kind: str,
    version: int,
    content: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    *,
    keep_previous: str | os.PathLike[str] | None = None,
) -> None:
    """Write tensors and a JSON-serialisable ``content`` atomically (``keep_previous``: see `write_atomically`).

    Raises:
        OSError: the file could not be written; the old one is unchanged.
        TypeError, ValueError: ``content`` cannot be written as JSON.
    """
    plain = _plain_tensors(tensors)
    digests = {name: hashlib.sha256(_bytes_of(tensor)).hexdigest() for name, tensor in plain.items()}
    document = {
        "kind": kind,
        "format_version": version,
        "content": dict(content),
        "tensor_sha256": digests,
    }
    write_atomically(path, sealed_parts(plain, document), keep_previous=keep_previous)


@contextmanager
def open_container(path: str | os.PathLike[str], kind: str, version: int) -> Iterator[Container]:
    """Open a file of `write_container` and verify its header, without reading a tensor.

    Raises:
        ContainerError: the file is absent, not a regular file, unreadable or incomplete, its header is damaged or
            names more bytes than the file has, it is not a safetensors file (a pickle or zip archive is reported as
            such and never opened), or it is of another kind.
        VersionError: another format version.
    """
    path = Path(path)
    with _open_regular(path) as (file, size):
        try:
            header = parse_header(file, size)
        except HeaderError as error:
            raise ContainerError(f"{path}: {error} ({size} bytes)") from error
        _require_kind_and_version(path, header, kind, version)
        yield Container(path, size, header.content, header.entries, header, file)


@contextmanager
def _open_regular(path: Path) -> Iterator[tuple[BinaryIO, int]]:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # checked before opening: opening a pipe waits for a writer
            found = "a directory" if path.is_dir() else "a device or pipe"
            raise ContainerError(f"{path}: {found}; expected a file")
        file = open(path, "rb")  # noqa: SIM115  closed below
    except OSError as error:
        raise ContainerError(f"{path}: {error.strerror}; expected a readable file") from error
    with file:
        yield file, os.fstat(file.fileno()).st_size


def _require_kind_and_version(path: Path, header: Header, kind: str, version: int) -> None:
    damage = "" if header.intact else "; and its header is damaged (SHA-256 does not match)"
    if header.kind != kind:
        raise ContainerError(f"{path}: kind {header.kind!r}; expected {kind!r}{damage}")
    if header.format_version != version:
        found = json.dumps(header.format_version)
        raise (VersionError if header.intact else ContainerError)(
            f"{path}: format version {found}; this program reads version {version}{damage}"
        )
    if not header.intact:
        raise ContainerError(f"{path}: the header is damaged (SHA-256 does not match)")


def _plain_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return detached, contiguous CPU tensors that share no memory, as the library requires."""
    plain: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach().to("cpu").contiguous()
        if tensor.untyped_storage().nbytes() != tensor.numel() * tensor.element_size() or any(
            tensor.data_ptr() == other.data_ptr() for other in plain.values()
        ):
            tensor = tensor.clone()
        plain[name] = tensor
    return plain


def _bytes_of(tensor: Tensor) -> memoryview | bytes:
    if math.prod(tensor.shape) == 0:
        return b""
    return tensor.reshape(-1).view(torch.uint8).numpy().data
