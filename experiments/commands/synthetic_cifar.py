"""Writes made-up images in the binary format of CIFAR, to run the whole path where the real ones are not at hand.

    python -m experiments synthetic-cifar out/synthetic --classes 10

Every class is a smooth coloured pattern; its images show it moved, paler or stronger, beside the pattern of another
class at less strength, under noise. They say whether programs work, nothing about CIFAR.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairseq_l2t.storage import write_atomically

__all__ = ["FILES", "add_options", "run"]

FILES = {
    10: [(f"data_batch_{number}.bin", 10_000) for number in range(1, 6)] + [("test_batch.bin", 10_000)],
    100: [("train.bin", 50_000), ("test.bin", 10_000)],
}
"""File and number of images, as the official archives have them."""

_SIDE, _COARSE, _AT_ONCE = 32, 8, 2_000


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this program."""
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--classes", type=int, choices=(10, 100), default=10, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=1, help="default: %(default)s")


def run(options: argparse.Namespace) -> None:
    """Write the files."""
    options.folder.mkdir(parents=True, exist_ok=True)
    patterns = _patterns(np.random.default_rng(options.seed), options.classes)
    for number, (name, count) in enumerate(FILES[options.classes]):
        generator = np.random.default_rng((options.seed, number))
        write_atomically(options.folder / name, _records(generator, patterns, count))
        print(f"{options.folder / name}: {count} images")


def _patterns(generator: np.random.Generator, classes: int) -> NDArray[Any]:
    """Return a smooth pattern for each class, (classes, 3, side, side), of mean 0 and deviation 1."""
    coarse = generator.standard_normal((classes, 3, _COARSE, _COARSE)).astype(np.float32)
    # Its Fourier coefficients, of a finer grid: smooth, and it goes on at the opposite edge where it is moved out.
    spectrum = np.zeros((classes, 3, _SIDE, _SIDE), np.complex64)
    half = _COARSE // 2
    places = [*range(half), *range(_SIDE - half, _SIDE)]
    spectrum[..., np.ix_(places, places)[0], np.ix_(places, places)[1]] = np.fft.fft2(coarse)
    fine = np.fft.ifft2(spectrum).real
    fine -= fine.mean((1, 2, 3), keepdims=True)
    patterns: NDArray[Any] = (fine / fine.std((1, 2, 3), keepdims=True)).astype(np.float32)
    return patterns


def _records(generator: np.random.Generator, patterns: NDArray[Any], count: int) -> Iterator[bytes]:
    classes = len(patterns)
    for begin in range(0, count, _AT_ONCE):
        size = min(_AT_ONCE, count - begin)
        labels = generator.integers(0, classes, size)
        others = (labels + generator.integers(1, classes, size)) % classes
        own, other = (_moved(generator, patterns[which]) for which in (labels, others))
        strength = generator.uniform(0.5, 1.0, (size, 1, 1, 1)).astype(np.float32)
        noise = generator.standard_normal(own.shape, dtype=np.float32)
        images = 128 + 40 * (strength * own + 0.6 * (1 - strength) * other + 0.7 * noise)
        pixels = images.clip(0, 255).astype(np.uint8).reshape(size, -1)
        # CIFAR-100 has the coarse label first, of 20 superclasses.
        label_bytes = [labels] if classes == 10 else [labels // 5, labels]
        yield np.concatenate([np.stack(label_bytes, 1).astype(np.uint8), pixels], 1).tobytes()


def _moved(generator: np.random.Generator, images: NDArray[Any]) -> NDArray[Any]:
    """Return ``images`` (n, 3, side, side), each moved by up to 4 pixels each way, around the edges."""
    rows, columns = (generator.integers(-4, 5, (len(images), 1)) + np.arange(_SIDE) for _ in range(2))
    number = np.arange(len(images))[:, None, None, None]
    channel = np.arange(3)[None, :, None, None]
    moved: NDArray[Any] = images[number, channel, rows[:, None, :, None] % _SIDE, columns[:, None, None, :] % _SIDE]
    return moved
