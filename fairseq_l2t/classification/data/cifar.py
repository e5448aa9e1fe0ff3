"""The binary versions of CIFAR-10 and CIFAR-100. The pickled versions are refused: a pickle can run any code."""

from __future__ import annotations

import shlex
from pathlib import Path

import torch

from fairseq_l2t.classification.data.images import DataError, ImageSet

__all__ = ["load_cifar"]

_PIXELS = 3 * 32 * 32
_RECORDS = 10_000
_CIFAR10_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_FILES = {
    10: (tuple(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin", 1, "batches.meta.txt"),
    100: (("train.bin",), "test.bin", 5, "fine_label_names.txt"),
}
"""Training files, test file, records of a training file in multiples of `_RECORDS`, file of the class names."""

_FOLDERS = {10: "cifar-10-batches-bin", 100: "cifar-100-binary"}
_ARCHIVES = {10: "cifar-10-binary.tar.gz", 100: "cifar-100-binary.tar.gz"}
_ARCHIVE_MD5 = {10: "c32a1d4ab5d03f1284b67883e8d87530", 100: "03b5dce01913d631647c71ecec9e9cb8"}
"""MD5 sums from https://www.cs.toronto.edu/~kriz/cifar.html."""

_PICKLED = {10: ("data_batch_1", "test_batch", "batches.meta"), 100: ("train", "test", "meta")}
_PICKLED_FOLDERS = {10: "cifar-10-batches-py", 100: "cifar-100-python"}


def load_cifar(folder: Path, classes: int) -> tuple[ImageSet, ImageSet]:
    """Return training and test images.

    Args:
        folder: the folder of the ``.bin`` files, or its parent.
        classes: 10 or 100 (fine labels).

    Raises:
        DataError: absent or pickled files, files of another size, or labels out of range.
    """
    folder = _folder_of(folder, classes)
    train, test, times, names_file = _FILES[classes]
    names = _names(folder / names_file, classes)
    parts = [_read(folder / name, times * _RECORDS, classes, names) for name in train]
    images, labels = (torch.cat([getattr(part, field) for part in parts]) for field in ("images", "labels"))
    return ImageSet(images, labels, names), _read(folder / test, _RECORDS, classes, names)


def _folder_of(folder: Path, classes: int) -> Path:
    first = _FILES[classes][0][0]
    for place in (folder, folder / _FOLDERS[classes]):
        if (place / first).is_file():
            return place
    archive = folder / _ARCHIVES[classes]
    if archive.is_file():
        raise DataError(
            f"{archive}: not unpacked yet; check that its MD5 is {_ARCHIVE_MD5[classes]}, then: "
            f"tar -xzf {shlex.quote(str(archive))} -C {shlex.quote(str(folder))}"
        )
    # Files only: folders of pictures are often called train and test.
    pickled = [name for name in _PICKLED[classes] if (folder / name).is_file()]
    pickled += [_PICKLED_FOLDERS[classes]] * (folder / _PICKLED_FOLDERS[classes]).is_dir()
    if pickled:
        raise DataError(
            f"{folder / pickled[0]}: the pickled version of CIFAR-{classes}, refused because loading a "
            f"pickle can run any code; expected the binary version ({_ARCHIVES[classes]})"
        )
    raise DataError(f"--data-dir {folder}: no {first}; expected the files of {_ARCHIVES[classes]}")


def _read(path: Path, records: int, classes: int, names: tuple[str, ...]) -> ImageSet:
    label_bytes = 1 if classes == 10 else 2
    expected = records * (label_bytes + _PIXELS)
    try:
        size = path.stat().st_size
        if size != expected:
            raise DataError(f"{path}: {size} bytes; expected {expected}, {records} records of {label_bytes + _PIXELS}")
        data = torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8).view(records, label_bytes + _PIXELS)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; expected a readable file") from error
    labels = data[:, label_bytes - 1].long()  # CIFAR-100 has a coarse label first
    if int(labels.max()) >= classes:
        raise DataError(f"{path}: label {int(labels.max())}; expected 0 to {classes - 1}")
    return ImageSet(data[:, label_bytes:].reshape(records, 3, 32, 32).contiguous(), labels, names)


def _names(path: Path, classes: int) -> tuple[str, ...]:
    if path.is_file():
        names = tuple(path.read_text(encoding="utf-8", errors="replace").split())
        if len(names) == classes:
            return names
    return _CIFAR10_CLASSES if classes == 10 else tuple(f"class {number}" for number in range(classes))
