"""Labelled images: digits, and MNIST and CIFAR from a folder that the user names; nothing is downloaded."""

from fairseq_l2t.classification.data.augmentation import Augmentation, apply_augmentation, draw_augmentation
from fairseq_l2t.classification.data.images import DataError, ImageSet, normalise
from fairseq_l2t.classification.data.splits import DATA_NAMES, Splits, load_data

__all__ = [
    "DATA_NAMES",
    "Augmentation",
    "DataError",
    "ImageSet",
    "Splits",
    "apply_augmentation",
    "draw_augmentation",
    "load_data",
    "normalise",
]
