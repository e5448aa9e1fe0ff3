"""Grids of image classification: images, students, losses and seeds.

    settings:
      - {data: digits, label_noise: 0.4, student: mlp-64-64}
    seeds: [1, 2, 3, 4, 5]
    tuning_seeds: [101, 102, 103]
    student: "--total-updates 300 --lr-scheduler cosine"
    learning_rates: [0.03, 0.1]
    teachers:
      trained: "--lr 0.1"
    losses:
      cross-entropy: ["--loss cross-entropy"]
      l2t-dlf: ["--loss teacher --teacher-path trained"]

Each setting gives one table. ``student`` holds options of ``l2t-classify train`` that all students share, each loss
the options to choose from; ``--teacher-path`` names an entry of ``teachers``, which hold options of ``l2t-classify
train-teacher``. The ``tuning_seeds`` choose option and learning rate on dev; ``seeds`` give the results.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from experiments.grid.entries import Entry, Name, Rates, Seeds, Share

__all__ = ["BASELINE", "ImageGrid", "ImageSetting"]

BASELINE = "cross-entropy"
"""The loss that the others are compared with."""

_Losses = Annotated[tuple[str, ...], Field(strict=False, min_length=1)]
_LossName = Annotated[str, Field(pattern=r"^[\w.-]+$")]


class ImageSetting(Entry):
    """Images, share of wrong training labels, and network."""

    data: str
    label_noise: Share
    student: str

    @property
    def name(self) -> str:
        """The name of its folder."""
        return f"{self.data}.noise{100 * self.label_noise:g}.{self.student}"


class ImageGrid(Entry):
    """A grid file; the head of this module shows one."""

    settings: Annotated[tuple[ImageSetting, ...], Field(strict=False, min_length=1)]
    seeds: Seeds
    tuning_seeds: Seeds
    student: str
    learning_rates: Rates
    teachers: dict[Name, str]
    losses: Annotated[dict[_LossName, _Losses], Field(min_length=1)]
