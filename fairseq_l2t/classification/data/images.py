"""Labelled images in memory."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

__all__ = ["DataError", "ImageSet", "normalise"]


class DataError(ValueError):
    """Images that cannot be used; the message is one line that begins with the file or the option."""


@dataclass(frozen=True)
class ImageSet:
    """Images and their labels.

    Args:
        images: uint8 (images, channels, height, width).
        labels: int64 (images,), numbers of classes.
        classes: names, in the order of their numbers.
        levels: brightest value of a pixel.

    Raises:
        ValueError: shapes, types or labels that do not fit together.
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    levels: int = 255

    def __post_init__(self) -> None:
        if self.images.dim() != 4 or self.images.dtype != torch.uint8:
            raise ValueError(f"images: {self.images.dtype} {tuple(self.images.shape)}; expected uint8 (n, c, h, w)")
        if self.labels.shape != self.images.shape[:1] or self.labels.dtype != torch.int64:
            found = f"{self.labels.dtype} {tuple(self.labels.shape)}"
            raise ValueError(f"labels: {found}; expected int64 ({len(self.images)},)")
        if len(self.labels) and not 0 <= int(self.labels.min()) <= int(self.labels.max()) < len(self.classes):
            found = f"{int(self.labels.min())} to {int(self.labels.max())}"
            raise ValueError(f"labels: {found}; expected 0 to {len(self.classes) - 1}")
        if not 1 <= self.levels <= 255:
            raise ValueError(f"levels: {self.levels}; expected 1 to 255")

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, indices: Tensor) -> ImageSet:
        """Return the images at ``indices`` (n,), in their order."""
        return replace(self, images=self.images[indices], labels=self.labels[indices])


def normalise(images: Tensor, levels: int, mean: Tensor, std: Tensor, dtype: torch.dtype) -> Tensor:
    """Return uint8 images (n, c, h, w) as ``(image / levels - mean) / std`` in ``dtype``; mean and std are (c,)."""
    mean, std = (part.to(dtype).view(-1, 1, 1) for part in (mean, std))
    return (images.to(dtype) / levels - mean) / std
