"""Small files in the formats of MNIST and CIFAR."""

import gzip
import struct

import numpy as np


def idx_bytes(array, *, magic=None, shape=None):
    """Return an IDX file of unsigned bytes."""
    shape = array.shape if shape is None else shape
    magic = bytes((0, 0, 8, len(shape))) if magic is None else magic
    return magic + struct.pack(f">{len(shape)}I", *shape) + array.astype(np.uint8).tobytes()


def write_mnist(folder, split, count, *, seed=0, packed=False):
    """Write images of 28 x 28 and labels; return both arrays."""
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 256, (count, 28, 28), dtype=np.uint8)
    labels = (np.arange(count) % 10).astype(np.uint8)
    for name, array in ((f"{split}-images-idx3-ubyte", images), (f"{split}-labels-idx1-ubyte", labels)):
        content = idx_bytes(array)
        (folder / (name + ".gz" * packed)).write_bytes(gzip.compress(content) if packed else content)
    return images, labels


def cifar_bytes(count, label_bytes, *, seed=0, labels=None):
    """Return records of CIFAR and what they hold: labels (count, label_bytes) and pixels (count, 3072)."""
    generator = np.random.default_rng(seed)
    pixels = generator.integers(0, 256, (count, 3072), dtype=np.uint8)
    if labels is None:
        labels = np.stack([np.arange(count) % 10] * label_bytes, 1)
    labels = np.asarray(labels, dtype=np.uint8).reshape(count, label_bytes)
    return np.concatenate([labels, pixels], 1).tobytes(), labels, pixels
