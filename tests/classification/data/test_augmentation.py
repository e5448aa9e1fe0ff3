"""Augmentation against a loop over pixels, and normalisation by hand."""

import torch

from fairseq_l2t.classification.data import Augmentation, apply_augmentation, draw_augmentation, normalise


def slowly(images, augmentation, pad):
    """Pad, crop, mirror, one image at a time."""
    found = []
    height, width = images.shape[2:]
    moves = zip(images, augmentation.shifts.tolist(), augmentation.flips.tolist(), strict=True)
    for image, (down, right), flip in moves:
        padded = torch.nn.functional.pad(image, (pad,) * 4)
        crop = padded[:, pad - down : pad - down + height, pad - right : pad - right + width]
        found.append(crop.flip(-1) if flip else crop)
    return torch.stack(found)


def test_it_is_pad_crop_and_mirror():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (50, 3, 9, 7), generator=generator, dtype=torch.uint8)
    drawn = draw_augmentation(50, generator)
    assert torch.equal(apply_augmentation(images, drawn), slowly(images, drawn, 4))
    unmoved = Augmentation(torch.zeros_like(drawn.shifts), torch.zeros_like(drawn.flips))
    assert torch.equal(apply_augmentation(images, unmoved), images)
    assert not torch.equal(apply_augmentation(images, drawn), images)


def test_draws_are_the_generators():
    first, second, other = (draw_augmentation(400, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert torch.equal(first.shifts, second.shifts) and torch.equal(first.flips, second.flips)
    assert not torch.equal(first.shifts, other.shifts)
    assert set(first.shifts.reshape(-1).tolist()) == set(range(-4, 5)) and 140 < int(first.flips.sum()) < 260


def test_normalise_by_hand():
    images = torch.tensor([0, 8, 16], dtype=torch.uint8).view(3, 1, 1, 1)
    found = normalise(images, 16, torch.tensor([0.5]), torch.tensor([0.25]), torch.float64)
    assert found.reshape(-1).tolist() == [-2.0, 0.0, 2.0]
