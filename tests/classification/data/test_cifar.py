"""CIFAR's binary files: read whole, or refused in one line; pickles are never opened."""

import pickle
import shlex

import numpy as np
import pytest
import torch

from fairseq_l2t.classification.data import DataError, cifar, load_data
from tests.classification.data.image_files import cifar_bytes

COUNT = 40


@pytest.fixture(autouse=True)
def small_files(monkeypatch):
    monkeypatch.setattr(cifar, "_RECORDS", COUNT)


def write_cifar10(folder):
    """Write six files of `COUNT` records; return what the test file holds."""
    folder.mkdir(exist_ok=True)
    for number in range(1, 6):
        (folder / f"data_batch_{number}.bin").write_bytes(cifar_bytes(COUNT, 1, seed=number)[0])
    content, labels, pixels = cifar_bytes(COUNT, 1, seed=9)
    (folder / "test_batch.bin").write_bytes(content)
    return labels, pixels


def test_cifar10(tmp_path):
    labels, pixels = write_cifar10(tmp_path / "cifar-10-batches-bin")
    found = load_data("cifar10", tmp_path, seed=1, dev_size=50)
    assert (len(found.train), len(found.dev), len(found.test)) == (150, 50, COUNT)
    assert found.test.labels.tolist() == labels[:, 0].tolist() and found.test.classes[3] == "cat"
    assert torch.equal(found.test.images.reshape(COUNT, -1), torch.from_numpy(pixels))
    assert found.test.images.shape == (COUNT, 3, 32, 32)
    assert not torch.equal(found.test.images, found.dev.images[:COUNT])


def test_cifar100_takes_the_fine_labels(tmp_path):
    fine = np.arange(COUNT) % 100
    labels = np.stack([fine // 5, fine], 1)
    content = cifar_bytes(COUNT, 2, labels=labels)[0]
    (tmp_path / "test.bin").write_bytes(content)
    (tmp_path / "train.bin").write_bytes(content * 5)
    (tmp_path / "fine_label_names.txt").write_text("\n".join(f"name{number}" for number in range(100)) + "\n")
    found = load_data("cifar100", tmp_path, seed=1, dev_size=50)
    assert found.test.labels.tolist() == fine.tolist() and found.test.classes[7] == "name7"
    assert len(found.train) == 150


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (cifar_bytes(COUNT, 1)[0][:-1], "122919 bytes; expected 122920, 40 records of 3073"),
        (cifar_bytes(COUNT, 1)[0] + b"\0", "122921 bytes; expected 122920"),
        (cifar_bytes(COUNT, 1, labels=np.full(COUNT, 10))[0], "label 10; expected 0 to 9"),
        (b"", "0 bytes; expected 122920"),
    ],
    ids=map(str, range(4)),
)
def test_broken_files_are_refused(tmp_path, content, message):
    write_cifar10(tmp_path)
    (tmp_path / "data_batch_4.bin").write_bytes(content)
    with pytest.raises(DataError, match=f"data_batch_4.bin: {message}"):
        load_data("cifar10", tmp_path, seed=1, dev_size=50)


class _Danger:
    def __reduce__(self):
        return exec, ("raise SystemExit('the pickle was loaded')",)


@pytest.mark.parametrize(
    ("name", "file"),
    [("cifar10", "data_batch_1"), ("cifar10", "batches.meta"), ("cifar100", "train"), ("cifar100", "meta")],
)
def test_pickles_are_refused(tmp_path, name, file):
    (tmp_path / file).write_bytes(pickle.dumps(_Danger()))
    with pytest.raises(DataError, match="the pickled version of CIFAR-.*can run any code; expected the binary version"):
        load_data(name, tmp_path, seed=1)


def test_a_folder_named_train_is_no_pickle(tmp_path):
    (tmp_path / "train").mkdir()
    with pytest.raises(DataError, match="no train.bin; expected the files of cifar-100-binary.tar.gz"):
        load_data("cifar100", tmp_path, seed=1)
    (tmp_path / "cifar-100-python").mkdir()
    with pytest.raises(DataError, match="cifar-100-python: the pickled version"):
        load_data("cifar100", tmp_path, seed=1)


def test_an_archive_must_be_unpacked(tmp_path):
    folder = tmp_path / "my data"
    folder.mkdir()
    (folder / "cifar-10-binary.tar.gz").write_bytes(b"x")
    with pytest.raises(DataError, match="not unpacked yet; check that its MD5 is c32a1d4a") as raised:
        load_data("cifar10", folder, seed=1)
    command = shlex.split(str(raised.value).split("then: ")[1])
    assert command == ["tar", "-xzf", str(folder / "cifar-10-binary.tar.gz"), "-C", str(folder)]


def test_one_file_is_missing(tmp_path):
    write_cifar10(tmp_path)
    (tmp_path / "data_batch_4.bin").unlink()
    with pytest.raises(DataError, match="data_batch_4.bin: No such file"):
        load_data("cifar10", tmp_path, seed=1, dev_size=50)


def test_an_empty_folder(tmp_path):
    with pytest.raises(DataError, match="no data_batch_1.bin; expected the files of cifar-10-binary.tar.gz"):
        load_data("cifar10", tmp_path, seed=1)
