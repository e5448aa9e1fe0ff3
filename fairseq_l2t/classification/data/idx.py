"""The IDX files of MNIST, compressed or not; sizes are checked before memory is taken."""

from __future__ import annotations

import gzip
import hashlib
import logging
import math
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from fairseq_l2t.classification.data.images import DataError, ImageSet

__all__ = ["MD5", "find_mnist", "read_idx", "read_images"]

MD5 = {
    "train-images": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels": "a25bea736e30d166cdddb491f175f624",
    "t10k-images": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels": "27ae3e4e09519cfbb04c329615203637",
}
"""MD5 of the published files, unpacked. Those of t10k were compared with the files; those of train were not."""

_UNSIGNED_BYTE = 8
_LARGEST_FILE_BYTES = 2**31
_CHUNK = 2**20
_GZIP = b"\x1f\x8b"
_CLASSES = tuple("0123456789")

logger = logging.getLogger(__name__)


def read_idx(path: str | Path, dimensions: int) -> Tensor:
    """Return the uint8 tensor an IDX file holds.

    Args:
        path: of the file; its first bytes tell whether it is compressed.
        dimensions: their expected number: 3 for images, 1 for labels.

    Raises:
        DataError: an absent file, or one that is not an IDX file of bytes, is truncated, too long or damaged.
    """
    path = Path(path)
    try:
        with _opened(path) as file:
            header, shape = _header(path, file, dimensions)
            expected = math.prod(shape)
            # One byte more than announced is enough to see that the file is too long.
            data = _read(file, expected + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path}: the compressed data are truncated or damaged: {error}") from error
    except OSError as error:
        raise DataError(f"{path}: {error.strerror or error}; expected a readable IDX file") from error
    if len(data) != expected:
        found = len(data) if len(data) < expected else f"more than {expected}"
        raise DataError(f"{path}: {found} bytes of data; its header says {expected} ({'x'.join(map(str, shape))})")
    _compare_digest(path, header, data)
    return torch.frombuffer(data, dtype=torch.uint8).view(shape) if expected else torch.empty(shape, dtype=torch.uint8)


def find_mnist(folder: Path, split: str) -> tuple[Path, Path] | None:
    """Return the image and the label file of ``train`` or ``t10k`` in ``folder``, or None where neither is there.

    Raises:
        DataError: one of the two alone.
    """
    images, labels = (_first_of(folder, split, kind) for kind in ("images-idx3", "labels-idx1"))
    if images is None and labels is None:
        return None
    if images is None or labels is None:
        absent = "images" if images is None else "labels"
        raise DataError(f"--data-dir {folder}: no {split}-{absent} file beside the other one")
    return images, labels


def read_images(images: Path, labels: Path) -> ImageSet:
    """Return the images of two IDX files.

    Raises:
        DataError: see `read_idx`; counts that differ, no image at all, or labels above 9.
    """
    pixels, numbers = read_idx(images, 3), read_idx(labels, 1).long()
    if len(pixels) != len(numbers):
        raise DataError(f"{images}: {len(pixels)} images; {labels.name} has {len(numbers)} labels")
    if not len(numbers):
        raise DataError(f"{images}: 0 images; expected at least 1")
    if int(numbers.max()) > 9:
        raise DataError(f"{labels}: label {int(numbers.max())}; expected 0 to 9")
    return ImageSet(pixels.unsqueeze(1), numbers, _CLASSES)


def _first_of(folder: Path, split: str, kind: str) -> Path | None:
    dotted = kind.replace("-idx", ".idx")
    names = [f"{split}-{name}-ubyte{end}" for name in (kind, dotted) for end in ("", ".gz")]
    return next((folder / name for name in names if (folder / name).is_file()), None)


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO | gzip.GzipFile]:
    with path.open("rb") as file:
        start = file.read(2)
        file.seek(0)
        if start == _GZIP:
            with gzip.GzipFile(fileobj=file) as unpacked:
                yield unpacked
        else:
            yield file


def _read(file: BinaryIO | gzip.GzipFile, most: int) -> bytearray:
    """Return the content, up to ``most`` bytes, in chunks: a false header must not allocate the memory it announces."""
    data = bytearray()
    while chunk := file.read(min(_CHUNK, most - len(data))):
        data += chunk
    return data


def _header(path: Path, file: BinaryIO | gzip.GzipFile, dimensions: int) -> tuple[bytes, tuple[int, ...]]:
    magic = file.read(4)
    wanted = f"0000 08 {dimensions:02x}, unsigned bytes with {dimensions} dimensions"
    if magic != bytes((0, 0, _UNSIGNED_BYTE, dimensions)):
        raise DataError(f"{path}: begins with {magic.hex() or 'nothing'}; expected the IDX magic {wanted}")
    raw = file.read(4 * dimensions)
    if len(raw) < 4 * dimensions:
        raise DataError(f"{path}: ends inside its header")
    shape = struct.unpack(f">{dimensions}I", raw)
    if math.prod(shape) > _LARGEST_FILE_BYTES:
        raise DataError(
            f"{path}: its header says {'x'.join(map(str, shape))} bytes; expected at most {_LARGEST_FILE_BYTES}"
        )
    return magic + raw, shape


def _compare_digest(path: Path, header: bytes, data: bytearray) -> None:
    expected = next((digest for name, digest in MD5.items() if path.name.startswith(name)), None)
    if expected is None:
        return
    digest = hashlib.md5(header, usedforsecurity=False)
    digest.update(data)  # separately: joined with the header, the data would be in memory twice
    found = digest.hexdigest()
    if found != expected:
        # Not an error: a part of MNIST or other images in its format. Sizes and labels are checked elsewhere.
        logger.warning("%s: MD5 of the content %s; the published file has %s", path, found, expected)
