"""The images of an update, determined by seed and number of the update, so that any update can be made again."""

from __future__ import annotations

import random
from dataclasses import dataclass

import torch
from torch import Tensor

from fairseq_l2t.classification.data import Augmentation, ImageSet, apply_augmentation, draw_augmentation, normalise

__all__ = ["Minibatch", "TrainBatches"]


@dataclass(frozen=True)
class Minibatch:
    """One minibatch.

    Args:
        indices: numbers of training images (images,).
        augmentation: how each is moved and mirrored; None: not at all.
    """

    indices: Tensor
    augmentation: Augmentation | None


class TrainBatches:
    """The batches of one life.

    Args:
        images: the training images.
        batch_size: images of a batch; the last, smaller batch of an epoch is left out.
        mean, std: of the training images, (channels,).
        augment: whether images are moved and mirrored.
        seed: of the life.

    Raises:
        ValueError: fewer images than one batch.
    """

    def __init__(
        self, images: ImageSet, batch_size: int, mean: Tensor, std: Tensor, *, augment: bool, seed: int
    ) -> None:
        if batch_size > len(images.labels):
            raise ValueError(f"--batch-size: {batch_size}; expected at most the {len(images.labels)} training images")
        self._images, self._batch_size, self._augment, self._seed = images, batch_size, augment, seed
        self._mean, self._std = mean, std
        self._epoch, self._order = -1, torch.empty(0, dtype=torch.long)

    @property
    def per_epoch(self) -> int:
        """Number of batches of an epoch."""
        return len(self._images.labels) // self._batch_size

    def of_update(self, update: int) -> Minibatch:
        """Return the batch of an update; ``update`` counts from 0."""
        epoch, position = divmod(update, self.per_epoch)
        if epoch != self._epoch:
            generator = self._draws("order", epoch)
            self._epoch, self._order = epoch, torch.randperm(len(self._images.labels), generator=generator)
        indices = self._order[position * self._batch_size : (position + 1) * self._batch_size]
        drawn = draw_augmentation(len(indices), self._draws("augmentation", update)) if self._augment else None
        return Minibatch(indices, drawn)

    def tensors(self, batch: Minibatch, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Return images (images, channels, height, width), normalised, and labels (images,)."""
        images = self._images.images[batch.indices]
        if batch.augmentation is not None:
            images = apply_augmentation(images, batch.augmentation)
        return normalise(images, self._images.levels, self._mean, self._std, dtype), self._images.labels[batch.indices]

    def _draws(self, purpose: str, number: int) -> torch.Generator:
        # Hashed from a text, so that no two pairs of seed and number give the same generator.
        return torch.Generator().manual_seed(random.Random(f"{self._seed} {purpose} {number}").getrandbits(63))
