"""The digits of scikit-learn: 1,797 scans of 8 x 8 pixels with 17 levels, by 43 writers; part of the library."""

from __future__ import annotations

import torch

from fairseq_l2t.classification.data.images import DataError, ImageSet

__all__ = ["load_digits"]

_LEVELS = 16
"""Brightest value of a pixel."""


def load_digits() -> ImageSet:
    """Return the scans (1797, 1, 8, 8).

    Raises:
        DataError: scikit-learn is not installed.
    """
    try:
        from sklearn import datasets
    except ImportError as error:
        install = "pip install 'scikit-learn>=1.3'"
        raise DataError(f"--data digits: needs scikit-learn, {install} ({error})") from error
    found = datasets.load_digits()
    images = torch.from_numpy(found.images).to(torch.uint8).unsqueeze(1)
    return ImageSet(images, torch.from_numpy(found.target).long(), tuple("0123456789"), _LEVELS)
