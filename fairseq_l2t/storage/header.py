"""The header of this package's safetensors files: it holds its own digest and is checked before anything else is read.

Every number from the file is compared with the size of the file before it is used, so that a few bytes cannot make the
program allocate gigabytes.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

import safetensors.torch
from torch import Tensor

__all__ = ["Header", "HeaderError", "TensorEntry", "parse_header", "sealed_parts"]

ITEM_SIZES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
"""Bytes per element, by the dtype names of safetensors."""

_LENGTH_BYTES = 8
_METADATA_KEY = "fairseq_l2t"
# JSON strings contain no unescaped quote, so these bytes occur in no content.
_DIGEST_MARK = b'"fairseq_l2t":"{\\"header_sha256\\":\\"'
_NO_DIGEST = "0" * 64
_LONGEST_HEADER = 100_000_000
"""Bytes; the limit of the safetensors library."""
_MOST_DIGITS = 100
"""Digits of a whole number in a header. Python converts at most 4,300, also to print a product of such numbers."""
_MOST_DIMENSIONS = 64
_LARGEST_SIZE = 2**63 - 1
_LONGEST_SHOWN = 200
"""Characters of a damaged value that an error shows."""

_NOT_OPENED = "it can carry code and was not opened; expected a safetensors file"
_TORCH_PICKLE = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e")
"""First bytes of a file of torch.save before PyTorch 1.6, or with _use_new_zipfile_serialization=False."""
_TORCH_MEMBER = b"/data.pkl"
"""End of the name of the first member of an archive of torch.save."""
_SAMPLE_BYTES = 1024


class HeaderError(ValueError):
    """A header that cannot be used; the message does not name the file."""


@dataclass(frozen=True)
class TensorEntry:
    """One tensor as the header describes it; ``begin`` and ``end`` are byte offsets after the header."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


@dataclass(frozen=True)
class Header:
    """A header of consistent structure.

    Args:
        raw: length field and header, as in the file.
        data_size: bytes of tensors after the header.
        intact: whether the digest of the header matches.
        kind: the type of file.
        format_version: version of the format of that type.
        content: see `container`.
        tensor_digests: SHA-256 of each tensor, by name.
        entries: each tensor, by name.
    """

    raw: bytes
    data_size: int
    intact: bool
    kind: Any
    format_version: Any
    content: dict[str, Any]
    tensor_digests: dict[str, Any]
    entries: dict[str, TensorEntry]


def sealed_parts(tensors: dict[str, Tensor], document: Mapping[str, Any]) -> tuple[bytes, memoryview]:
    """Return the file of ``tensors`` and a JSON-serialisable ``document`` as two parts, header and tensors."""
    text = json.dumps({"header_sha256": _NO_DIGEST, **document}, separators=(",", ":"))
    serialized = safetensors.torch.save(tensors, metadata={_METADATA_KEY: text})
    header_end = _LENGTH_BYTES + int.from_bytes(serialized[:_LENGTH_BYTES], "little")
    raw = serialized[:header_end]
    place = _digest_place(raw)
    if place is None:
        raise RuntimeError(
            "safetensors: this version writes metadata in an unknown form, so that the header cannot hold its digest"
        )
    digest = hashlib.sha256(raw).hexdigest().encode()
    return raw[:place] + digest + raw[place + len(digest) :], memoryview(serialized)[header_end:]


def parse_header(file: BinaryIO, size: int) -> Header:
    """Read the header of ``file``, open at its start and ``size`` bytes long.

    Raises:
        HeaderError: the header is incomplete, not JSON or of another program, or the tensors do not fill the file.
    """
    start = file.read(min(size, _SAMPLE_BYTES))
    try:
        return _parse(file, size)
    except HeaderError:
        # Only now: the first bytes of a pickle also begin the length field of a 640-byte header.
        what = _foreign_format(start, size)
        if what is None:
            raise
        raise HeaderError(what) from None


def _parse(file: BinaryIO, size: int) -> Header:
    raw = _raw_header(file, size)
    values = _parse_json(raw[_LENGTH_BYTES:])
    metadata = values.pop("__metadata__", None)
    entries = {name: _entry(name, value) for name, value in values.items()}
    data_size = size - len(raw)
    _require_exact_cover(entries, data_size)
    document = _document(metadata)
    return Header(
        raw=raw,
        data_size=data_size,
        intact=_is_intact(raw),
        kind=document.get("kind"),
        format_version=document.get("format_version"),
        content=_mapping(document, "content"),
        tensor_digests=_mapping(document, "tensor_sha256"),
        entries=entries,
    )


def _raw_header(file: BinaryIO, size: int) -> bytes:
    file.seek(0)
    start = file.read(_LENGTH_BYTES)
    if len(start) < _LENGTH_BYTES:
        raise HeaderError(f"not a safetensors file, or the header is cut: {size} bytes; expected at least 8")
    length = int.from_bytes(start, "little")
    if length > _LONGEST_HEADER:
        raise HeaderError(
            f"not a safetensors file, or the header is damaged: it claims {length} bytes; at most {_LONGEST_HEADER}"
        )
    if length > size - _LENGTH_BYTES:
        raise HeaderError(
            f"the header is cut or damaged: it claims {length} bytes; the file has {size - _LENGTH_BYTES} "
            "after the length field"
        )
    return start + file.read(length)


def _foreign_format(start: bytes, size: int) -> str | None:
    """Return a message for a file that begins like a PyTorch checkpoint, a zip archive, a pickle or text."""
    if start.startswith(b"PK\x03\x04"):
        what = "a PyTorch checkpoint (a zip archive of torch.save)" if _TORCH_MEMBER in start else "a zip archive"
        return f"{what}, not a safetensors file; {_NOT_OPENED}"
    if start.startswith(_TORCH_PICKLE):
        return f"a PyTorch checkpoint (a pickle of torch.save), not a safetensors file; {_NOT_OPENED}"
    is_header = start[_LENGTH_BYTES:].startswith(b"{") or int.from_bytes(start[:_LENGTH_BYTES], "little") < size
    if start[:1] == b"\x80" and start[1:2] in (b"\2", b"\3", b"\4", b"\5") and not is_header:
        return f"a pickle, not a safetensors file; {_NOT_OPENED}"
    if start and all(byte >= 0x20 or byte in b"\t\n\f\r" for byte in start):
        return "not a safetensors file: it begins like a text file"
    return None


def _parse_json(text: bytes) -> dict[str, Any]:
    try:
        values = json.loads(text.decode("utf-8"), object_pairs_hook=_without_repeats, parse_int=_short_integer)
    except (ValueError, RecursionError) as error:  # ValueError: JSON, UTF-8 and integers with too many digits
        raise HeaderError(f"not a safetensors file, or the header is damaged: {error}") from error
    if not isinstance(values, dict):
        raise HeaderError(f"the header is damaged: a JSON {type(values).__name__}; expected an object")
    return values


def _short_integer(text: str) -> int:
    if len(text) > _MOST_DIGITS:
        raise ValueError(f"a number of {len(text)} digits; at most {_MOST_DIGITS}")
    return int(text)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a name occurs twice")
    return values


def _entry(name: str, value: Any) -> TensorEntry:
    damaged = f"the header is damaged: tensor {_shown(name)}"
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise HeaderError(f"{damaged}: expected dtype, shape and data_offsets")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ITEM_SIZES:
        raise HeaderError(f"{damaged}: dtype {_shown(dtype)}; expected one of {', '.join(ITEM_SIZES)}")
    if not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2:
        raise HeaderError(
            f"{damaged}: shape {_shown(shape)}, data_offsets {_shown(offsets)}; "
            f"expected whole numbers below 2^63, at most {_MOST_DIMENSIONS}"
        )
    expected = math.prod(shape) * ITEM_SIZES[dtype]
    if offsets[1] - offsets[0] != expected:
        raise HeaderError(f"{damaged}: {offsets[1] - offsets[0]} bytes; its dtype and shape need {expected}")
    return TensorEntry(dtype, tuple(shape), offsets[0], offsets[1])


def _are_sizes(values: Any) -> bool:
    if not isinstance(values, list) or len(values) > _MOST_DIMENSIONS:
        return False
    return all(type(value) is int and 0 <= value <= _LARGEST_SIZE for value in values)


def _require_exact_cover(entries: Mapping[str, TensorEntry], data_size: int) -> None:
    position = 0
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)):
        if entry.begin != position:
            raise HeaderError(
                f"the header is damaged: tensor {_shown(name)} begins at {entry.begin}; expected {position}"
            )
        position = entry.end
    if position != data_size:
        raise HeaderError(f"cut or damaged: the tensors need {position} bytes; the file has {data_size} for them")


def _document(metadata: Any) -> dict[str, Any]:
    text = metadata.get(_METADATA_KEY) if isinstance(metadata, dict) else None
    if not isinstance(text, str):
        raise HeaderError(f"the header is damaged or not of this program: no {_METADATA_KEY!r} in its metadata")
    try:
        document = json.loads(text, parse_int=_short_integer)
    except (ValueError, RecursionError) as error:
        raise HeaderError(f"the header is damaged: metadata {_METADATA_KEY!r}: {error}") from error
    if not isinstance(document, dict):
        raise HeaderError(f"the header is damaged: metadata {_METADATA_KEY!r} is no JSON object")
    return document


def _mapping(document: Mapping[str, Any], name: str) -> dict[str, Any]:
    # Anything else shows in the digest, which the caller checks; another format version may have another type here.
    value = document.get(name)
    return value if isinstance(value, dict) else {}


def _digest_place(raw: bytes) -> int | None:
    found = raw.find(_DIGEST_MARK)
    return None if found < 0 else found + len(_DIGEST_MARK)


def _is_intact(raw: bytes) -> bool:
    place = _digest_place(raw)
    if place is None:
        return False
    end = place + len(_NO_DIGEST)
    expected = hashlib.sha256(raw[:place] + _NO_DIGEST.encode() + raw[end:]).hexdigest().encode()
    return raw[place:end] == expected
