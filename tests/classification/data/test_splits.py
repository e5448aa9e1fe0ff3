"""Who is in which split, and which labels are made wrong."""

import sys

import pytest
import torch

from fairseq_l2t.classification.data import DataError, load_data
from fairseq_l2t.classification.data.images import ImageSet
from fairseq_l2t.classification.data.splits import with_label_noise


def rows(images):
    return {tuple(image.reshape(-1).tolist()) for image in images.images}


def test_digits_are_divided_in_equal_shares():
    found = load_data("digits", seed=1)
    assert (len(found.train), len(found.dev), len(found.test)) == (1000, 297, 500)
    assert found.train.images.shape[1:] == (1, 8, 8) and found.train.levels == 16
    whole = len(rows(found.train) | rows(found.dev) | rows(found.test))
    assert whole == sum(map(len, map(rows, (found.train, found.dev, found.test)))) == 1797
    for part in (found.train, found.dev, found.test):
        counts = part.labels.bincount(minlength=10)
        assert int(counts.max() - counts.min()) <= max(2, len(part) // 100)


def test_mean_and_deviation_are_those_of_training():
    found = load_data("digits", seed=1, train_limit=100)
    pixels = found.train.images.double() / 16
    assert found.mean.item() == pytest.approx(pixels.mean().item())
    assert found.std.item() == pytest.approx(pixels.std(correction=0).item())
    assert found.mean.item() != pytest.approx(load_data("digits", seed=1).mean.item())


@pytest.mark.parametrize("share", [0.0, 0.4, 0.37])
def test_so_many_labels_are_wrong(share):
    clean = torch.arange(1000) % 10
    noisy = with_label_noise(clean, 10, share, 3)
    assert int((noisy != clean).sum()) == round(1000 * share)
    assert torch.equal(noisy, with_label_noise(clean, 10, share, 3))
    if share:
        assert not torch.equal(noisy, with_label_noise(clean, 10, share, 4))
        wrong = (noisy - clean)[noisy != clean] % 10
        assert set(wrong.tolist()) == set(range(1, 10))  # every other class


def test_noise_is_in_training_alone_and_changes_no_split():
    clean, noisy = load_data("digits", seed=1), load_data("digits", seed=1, label_noise=0.4)
    assert torch.equal(noisy.train.images, clean.train.images)
    assert torch.equal(noisy.clean_train_labels, clean.train.labels)
    assert int((noisy.train.labels != clean.train.labels).sum()) == 400
    for part in ("dev", "test"):
        assert torch.equal(getattr(noisy, part).labels, getattr(clean, part).labels)


def test_digits_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(DataError, match=r"--data digits: needs scikit-learn, pip install 'scikit-learn>=1.3'"):
        load_data("digits", seed=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "svhn"}, "--data: svhn; expected one of digits, mnist, cifar10, cifar100"),
        ({"name": "mnist"}, "--data mnist: needs --data-dir"),
        ({"name": "digits", "label_noise": 1.0}, r"--label-noise: 1.0; expected a share in \[0, 1\)"),
        ({"name": "digits", "label_noise": -0.1}, "--label-noise: -0.1"),
        ({"name": "digits", "label_noise": float("nan")}, "--label-noise: nan"),
        ({"name": "digits", "dev_size": 1297}, "--dev-size: 1297; expected 1 to 1296"),
        ({"name": "digits", "dev_size": 0}, "--dev-size: 0"),
        ({"name": "digits", "train_limit": 1001}, "--train-limit: 1001; expected 1 to 1000"),
    ],
)
def test_bad_options(arguments, message):
    with pytest.raises(DataError, match=message):
        load_data(**arguments, seed=1)


def test_a_folder_that_is_none(tmp_path):
    with pytest.raises(DataError, match="--data-dir: .*none; expected a folder"):
        load_data("mnist", tmp_path / "none", seed=1)


@pytest.mark.parametrize(
    ("images", "labels", "levels", "message"),
    [
        (torch.zeros(2, 1, 4, 4), torch.tensor([0, 1]), 255, "images: torch.float32"),
        (torch.zeros(2, 4, 4, dtype=torch.uint8), torch.tensor([0, 1]), 255, "images: torch.uint8"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.tensor([0]), 255, "labels: torch.int64"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.tensor([0, 2]), 255, "labels: 0 to 2; expected 0 to 1"),
        (torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.tensor([0, 1]), 300, "levels: 300"),
    ],
)
def test_what_is_no_image_set(images, labels, levels, message):
    with pytest.raises(ValueError, match=message):
        ImageSet(images, labels, ("a", "b"), levels)


def test_another_division():
    first, second, again = (load_data("digits", seed=1, split_seed=seed) for seed in (0, 1, 1))
    assert torch.equal(second.test.images, again.test.images) and torch.equal(second.dev.images, again.dev.images)
    assert not torch.equal(first.test.images, second.test.images)
    assert torch.equal(first.test.images, load_data("digits", seed=1).test.images)
    sums = [sum(int(part.images.long().sum()) for part in (one.train, one.dev, one.test)) for one in (first, second)]
    assert sums[0] == sums[1]
