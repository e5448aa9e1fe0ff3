"""The usual augmentation of CIFAR (pad, crop at random, mirror), drawn as data so that an update can be made again.

Source: He et al., CVPR 2016, section 4.2: 4 pixels of zeros on each side, a random crop of the old size, half mirrored.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["PAD", "Augmentation", "apply_augmentation", "draw_augmentation"]

PAD = 4
"""Pixels of zeros on each side."""


@dataclass(frozen=True)
class Augmentation:
    """The augmentation of each image.

    Args:
        shifts: (images, 2) pixels down and right.
        flips: (images,) whether it is mirrored.
    """

    shifts: Tensor
    flips: Tensor


def draw_augmentation(count: int, generator: torch.Generator, *, pad: int = PAD) -> Augmentation:
    """Return an augmentation for ``count`` images; shifts are whole numbers from -pad to pad."""
    shifts = torch.randint(-pad, pad + 1, (count, 2), generator=generator)
    return Augmentation(shifts, torch.rand(count, generator=generator) < 0.5)


def apply_augmentation(images: Tensor, augmentation: Augmentation) -> Tensor:
    """Return the images (images, channels, height, width) shifted, filled with 0, then mirrored."""
    count, channels, height, width = images.shape
    rows = torch.arange(height) - augmentation.shifts[:, :1]
    columns = torch.arange(width).expand(count, width)
    columns = torch.where(augmentation.flips.unsqueeze(1), width - 1 - columns, columns) - augmentation.shifts[:, 1:]
    inside = ((rows >= 0) & (rows < height)).unsqueeze(2) & ((columns >= 0) & (columns < width)).unsqueeze(1)
    places = rows.clamp(0, height - 1).unsqueeze(2) * width + columns.clamp(0, width - 1).unsqueeze(1)
    flat = places.view(count, 1, -1).expand(count, channels, -1)
    moved = images.reshape(count, channels, -1).gather(2, flat).view_as(images)
    return torch.where(inside.unsqueeze(1), moved, torch.zeros((), dtype=images.dtype))
