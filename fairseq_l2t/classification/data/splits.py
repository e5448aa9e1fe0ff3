"""Training, dev and test images of a data set, with label noise in the training images if requested."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from fairseq_l2t.classification.data.cifar import load_cifar
from fairseq_l2t.classification.data.idx import find_mnist, read_images
from fairseq_l2t.classification.data.images import DataError, ImageSet

__all__ = ["DATA_NAMES", "Splits", "load_data", "with_label_noise"]

DATA_NAMES = ("digits", "mnist", "cifar10", "cifar100")

_DIGITS_SPLIT = (297, 500)
_MNIST_SPLIT = (1000, 3000)
_OFFICIAL_DEV = 5000
"""Dev and test images of digits; dev and test images of MNIST without training files; dev images where the data set
has test images of its own."""


@dataclass(frozen=True)
class Splits:
    """The images of a run.

    Args:
        train, dev, test: no image is in two of them.
        name: of the data set.
        protocol: origin of the division into training and test images.
        clean_train_labels: (images,) labels of the training images without noise.
        mean, std: of the training images' channels, (channels,), pixels from 0 to 1.
    """

    train: ImageSet
    dev: ImageSet
    test: ImageSet
    name: str
    protocol: str
    clean_train_labels: Tensor
    mean: Tensor
    std: Tensor

    @cached_property
    def sha256(self) -> str:
        """Digest of all images, labels and their division, in hexadecimal."""
        digest = hashlib.sha256()
        for part in (self.train, self.dev, self.test):
            digest.update(repr((tuple(part.images.shape), part.levels, part.classes)).encode())
            digest.update(part.images.contiguous().numpy().data)
            digest.update(part.labels.contiguous().numpy().data)
        return digest.hexdigest()


def load_data(
    name: str,
    folder: Path | None = None,
    *,
    seed: int,
    label_noise: float = 0.0,
    dev_size: int | None = None,
    train_limit: int | None = None,
    split_seed: int = 0,
) -> Splits:
    """Return the splits of the data set ``name``.

    Args:
        name: one of `DATA_NAMES`.
        folder: with its files; not used for digits, which come with scikit-learn.
        seed: of the label noise.
        label_noise: share of the training labels that are replaced by another class.
        dev_size: images of dev, taken from the training images in equal shares of the classes (default: 297 of
            digits, 1,000 of a pool of test images, else 5,000).
        train_limit: number of the remaining training images to use (default: all).
        split_seed: seed of the choice of dev images, and of test images where the data set has none of its own.

    Raises:
        DataError: names the file or option, what was found, and what is allowed.
    """
    train, test, protocol, default = _pools(name, folder, split_seed)
    given = " (default)" if dev_size is None else ""
    dev_size = default if dev_size is None else dev_size
    if not 1 <= dev_size < len(train):
        raise DataError(f"--dev-size: {dev_size}{given}; expected 1 to {len(train) - 1} of the training images")
    train, dev = _divided(train, dev_size, split_seed)
    if train_limit is not None:
        if not 1 <= train_limit <= len(train):
            raise DataError(f"--train-limit: {train_limit}; expected 1 to {len(train)}")
        train = train.subset(torch.arange(train_limit))
    clean, labels = train.labels, with_label_noise(train.labels, len(train.classes), label_noise, seed)
    pixels = train.images.double().div_(train.levels)  # in place: CIFAR takes 1.1 GB
    mean, std = pixels.mean((0, 2, 3)), pixels.std((0, 2, 3), correction=0).clamp(min=1e-8)
    return Splits(replace(train, labels=labels), dev, test, name, protocol, clean, mean, std)


def with_label_noise(labels: Tensor, classes: int, share: float, seed: int) -> Tensor:
    """Return ``labels`` (n,) with ``round(share n)`` of them replaced, each by any of the other classes.

    Raises:
        DataError: a share outside [0, 1).
    """
    if not 0 <= share < 1:
        raise DataError(f"--label-noise: {share}; expected a share in [0, 1)")
    generator = torch.Generator().manual_seed(seed)
    wrong = torch.randperm(len(labels), generator=generator)[: round(share * len(labels))]
    others = torch.randint(1, classes, (len(wrong),), generator=generator)
    found = labels.clone()
    found[wrong] = (labels[wrong] + others) % classes
    return found


def _pools(name: str, folder: Path | None, seed: int) -> tuple[ImageSet, ImageSet, str, int]:
    """Return images for training and dev, test images, origin of that division, default number of dev images."""
    if name not in DATA_NAMES:
        raise DataError(f"--data: {name}; expected one of {', '.join(DATA_NAMES)}")
    if name == "digits":
        from fairseq_l2t.classification.data.digits import load_digits

        dev, test = _DIGITS_SPLIT
        return *_divided(load_digits(), test, seed), "our split", dev
    if folder is None:
        raise DataError(f"--data {name}: needs --data-dir, the folder with its files")
    if not folder.is_dir():
        raise DataError(f"--data-dir: {folder}; expected a folder")
    if name != "mnist":
        return *load_cifar(folder, 10 if name == "cifar10" else 100), "official test images", _OFFICIAL_DEV
    return _mnist(folder, seed)


def _mnist(folder: Path, seed: int) -> tuple[ImageSet, ImageSet, str, int]:
    """Return what `_pools` does of the IDX files in ``folder``."""
    train, test = (find_mnist(folder, split) for split in ("train", "t10k"))
    if test is None:
        raise DataError(f"--data-dir {folder}: no t10k-images-idx3-ubyte; expected the IDX files of MNIST")
    if train is None:
        dev, count = _MNIST_SPLIT
        pool = read_images(*test)
        if len(pool) <= count:
            raise DataError(f"{test[0]}: {len(pool)} images; expected more than the {count} taken as test images")
        return *_divided(pool, count, seed), f"our split of the {len(pool):,} test images", dev
    found, others = read_images(*train), read_images(*test)
    if found.images.shape[1:] != others.images.shape[1:]:
        sizes = [f"{part.images.shape[2]}x{part.images.shape[3]}" for part in (found, others)]
        raise DataError(f"{test[0]}: images of {sizes[1]}; expected {sizes[0]}, as in {train[0].name}")
    return found, others, "official test images", _OFFICIAL_DEV


def _divided(pool: ImageSet, count: int, seed: int) -> tuple[ImageSet, ImageSet]:
    """Return the rest of ``pool`` and ``count`` images of it, equal shares of every class, both in random order."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(pool), generator=generator)
    by_class = [order[pool.labels[order] == number] for number in range(len(pool.classes))]
    taken = _shares([len(part) for part in by_class], count)
    chosen = torch.cat([part[:take] for part, take in zip(by_class, taken, strict=True)])
    is_chosen = torch.zeros(len(pool), dtype=torch.bool)
    is_chosen[chosen] = True
    return pool.subset(order[~is_chosen[order]]), pool.subset(order[is_chosen[order]])


def _shares(sizes: Sequence[int], count: int) -> list[int]:
    """Return the number to take of each class: rounded down, then one more where rounding lost most."""
    exact = [size * count / sum(sizes) for size in sizes]
    found = [int(value) for value in exact]
    for number in sorted(range(len(sizes)), key=lambda n: found[n] - exact[n])[: count - sum(found)]:
        found[number] += 1
    return found
