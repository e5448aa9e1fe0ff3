"""MNIST's files: read whole, or refused in one line."""

import gzip
import tracemalloc

import numpy as np
import pytest
import torch

from fairseq_l2t.classification.data import DataError, load_data
from fairseq_l2t.classification.data.idx import read_idx
from tests.classification.data.image_files import idx_bytes, write_mnist

IMAGES = np.arange(3 * 4 * 5, dtype=np.uint8).reshape(3, 4, 5)


@pytest.mark.parametrize("packed", [False, True])
def test_what_was_written_is_read(tmp_path, packed):
    path = tmp_path / "x"
    content = idx_bytes(IMAGES)
    path.write_bytes(gzip.compress(content) if packed else content)
    assert torch.equal(read_idx(path, 3), torch.from_numpy(IMAGES))
    path.write_bytes(idx_bytes(IMAGES[::-1]))
    assert not torch.equal(read_idx(path, 3), torch.from_numpy(IMAGES))


# Without the time of day: processes that share the tests must see the same ones.
PACKED = gzip.compress(idx_bytes(IMAGES), mtime=0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "begins with nothing; expected the IDX magic 0000 08 03"),
        (b"PK\3\4" + bytes(40), "begins with 504b0304; expected the IDX magic"),
        (idx_bytes(IMAGES, magic=b"\0\0\x0d\3"), "begins with 00000d03"),
        (idx_bytes(IMAGES.reshape(3, 20)), "begins with 00000802"),
        (idx_bytes(IMAGES)[:10], "ends inside its header"),
        (idx_bytes(IMAGES)[:-1], r"59 bytes of data; its header says 60 \(3x4x5\)"),
        (idx_bytes(IMAGES) + b"\0", "more than 60 bytes of data; its header says 60"),
        (idx_bytes(IMAGES, shape=(60000, 60000, 28)), "header says 60000x60000x28 bytes; expected at most"),
        (PACKED[:-12], "truncated or damaged"),
        (PACKED[:-8] + bytes((PACKED[-8] ^ 1,)) + PACKED[-7:], "truncated or damaged: CRC check failed"),
        (PACKED + b"more", "truncated or damaged: Not a gzipped file"),
        (
            PACKED[:20] + bytes((PACKED[20] ^ 255,)) + PACKED[21:],
            "truncated or damaged|begins with|bytes of data|header",
        ),
        (gzip.compress(idx_bytes(IMAGES) + bytes(10**7), mtime=0), "more than 60 bytes of data"),
    ],
    ids=map(str, range(13)),
)
def test_broken_files_are_refused(tmp_path, content, message):
    path = tmp_path / "images"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as raised:
        read_idx(path, 3)
    assert str(raised.value).startswith(str(path)) and "\n" not in str(raised.value)


def test_a_header_that_lies_takes_no_memory(tmp_path):
    path = tmp_path / "images"
    path.write_bytes(idx_bytes(IMAGES, shape=(2000, 1000, 1000)))
    tracemalloc.start()
    with pytest.raises(DataError, match="60 bytes of data; its header says 2000000000"):
        read_idx(path, 3)
    assert tracemalloc.get_traced_memory()[1] < 10**7
    tracemalloc.stop()


def test_what_is_read_is_in_memory_once(tmp_path):
    path = tmp_path / "train-images-idx3-ubyte"  # a name whose digest is compared
    path.write_bytes(idx_bytes(np.zeros((64, 512, 512))))
    tracemalloc.start()
    assert read_idx(path, 3).shape == (64, 512, 512)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert 64 * 512 * 512 <= peak < 1.5 * 64 * 512 * 512


def test_absent_file(tmp_path):
    with pytest.raises(DataError, match="No such file"):
        read_idx(tmp_path / "none", 3)


def test_official_files_keep_their_division(tmp_path):
    write_mnist(tmp_path, "train", 60)
    images, labels = write_mnist(tmp_path, "t10k", 20, seed=1, packed=True)
    found = load_data("mnist", tmp_path, seed=1, dev_size=10)
    assert (len(found.train), len(found.dev), len(found.test)) == (50, 10, 20)
    assert found.protocol == "official test images"
    assert torch.equal(found.test.images.squeeze(1), torch.from_numpy(images))
    assert found.test.labels.tolist() == labels.tolist()


def test_a_pool_is_divided_and_says_so(tmp_path):
    write_mnist(tmp_path, "t10k", 4100)
    found = load_data("mnist", tmp_path, seed=1)
    assert (len(found.train), len(found.dev), len(found.test)) == (100, 1000, 3000)
    assert found.protocol == "our split of the 4,100 test images"


def test_the_dotted_names_are_found(tmp_path):
    _, labels = write_mnist(tmp_path, "t10k", 4100)
    for name in ("images-idx3", "labels-idx1"):
        (tmp_path / f"t10k-{name}-ubyte").rename(tmp_path / f"t10k-{name.replace('-', '.')}-ubyte")
    found = load_data("mnist", tmp_path, seed=1)
    every = torch.cat([part.labels for part in (found.train, found.dev, found.test)])
    assert torch.equal(every.bincount(), torch.from_numpy(labels).bincount())
    assert not torch.equal(every, torch.from_numpy(labels).long())  # divided at random


@pytest.mark.parametrize(("count", "message"), [(0, "0 images; expected at least 1"), (3000, "more than the 3000")])
def test_a_pool_too_small_to_divide(tmp_path, count, message):
    write_mnist(tmp_path, "t10k", count)
    with pytest.raises(DataError, match=f"t10k-images-idx3-ubyte: .*{message}"):
        load_data("mnist", tmp_path, seed=1)


def test_official_files_that_do_not_fit_together(tmp_path):
    write_mnist(tmp_path, "train", 60)
    write_mnist(tmp_path, "t10k", 20)
    path = tmp_path / "t10k-images-idx3-ubyte"
    broken = (((20, 14, 14), "images of 14x14; expected 28x28, as in train-images"), ((0, 28, 28), "0 images"))
    for shape, message in broken:
        path.write_bytes(idx_bytes(np.zeros(shape)))
        (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx_bytes(np.zeros(shape[0])))
        with pytest.raises(DataError, match=f"{path.name}: {message}"):
            load_data("mnist", tmp_path, seed=1, dev_size=10)


def test_files_that_do_not_belong_together(tmp_path):
    write_mnist(tmp_path, "t10k", 20)
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx_bytes(np.zeros(19)))
    with pytest.raises(DataError, match="20 images; t10k-labels-idx1-ubyte has 19 labels"):
        load_data("mnist", tmp_path, seed=1)
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx_bytes(np.full(20, 10)))
    with pytest.raises(DataError, match="label 10; expected 0 to 9"):
        load_data("mnist", tmp_path, seed=1)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match="no t10k-labels file beside the other one"):
        load_data("mnist", tmp_path, seed=1)


def test_other_content_under_the_name_is_told(tmp_path, caplog):
    write_mnist(tmp_path, "t10k", 4100)
    load_data("mnist", tmp_path, seed=1)
    assert "the published file has 2646ac647ad5339dbf082846283269ea" in caplog.text


def test_the_real_images(repository, caplog):
    folder = repository.parent / "shared" / "data" / "mnist"
    if not folder.is_dir():
        pytest.skip("no folder of MNIST images")
    found = load_data("mnist", folder, seed=1)
    assert (len(found.train), len(found.dev), len(found.test)) == (6000, 1000, 3000)
    assert not caplog.text  # the content is that of the published files
