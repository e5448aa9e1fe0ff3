"""Vectors saved on the device, in host memory or in a file."""

import errno

import pytest
import torch

from fairseq_l2t.unroll.memory.stores import DeviceStore, FileStore, HostStore
from tests.storage.files import files_end_at


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("make", [DeviceStore, HostStore, FileStore], ids=lambda make: make.__name__)
def test_vectors_come_back_as_they_were(make, dtype, tmp_path):
    store = make(tmp_path) if make is FileStore else make()
    generator = torch.Generator().manual_seed(1)
    states = [tuple(torch.randn(50, generator=generator, dtype=dtype) for _ in range(3)) for _ in range(4)]
    gradient = (torch.randn(50, generator=generator, dtype=dtype),)
    handles = [store.put(state) for state in states]
    other = store.put(gradient, owned=True)
    copies = [tuple(vector.clone() for vector in state) for state in states]
    for state in states:
        for vector in state:
            vector.zero_()  # the store holds its own
    store.drop(handles.pop(1))
    expected = [copies[0], copies[2], copies[3]]
    again = store.put(copies[2])  # in the place of the one that is gone
    for handle, vectors in zip([*handles, again], [*expected, copies[2]], strict=True):
        found = store.get(handle)
        assert all(map(torch.equal, found, vectors))
        assert {vector.dtype for vector in found} == {dtype}
    assert torch.equal(store.get(other)[0], gradient[0])


def test_large_states_stand_together_and_their_places_are_used_again():
    store, state = DeviceStore(), tuple(torch.full((100_000,), float(part)) for part in range(3))
    handles = [store.put(state) for _ in range(5)]
    assert len({store.get(handle)[0].untyped_storage().data_ptr() for handle in handles}) == 1
    place = store.get(handles[2])[0].data_ptr()
    store.drop(handles[2])
    assert store.get(store.put(state))[0].data_ptr() == place
    assert store.get(store.put(state))[0].data_ptr() != place  # the control: it is taken


def test_the_file_has_no_name_and_its_places_are_used_again(tmp_path):
    store = FileStore(tmp_path)
    vectors = (torch.ones(1000),)
    for _ in range(5):
        store.drop(store.put(vectors))
    assert list(tmp_path.iterdir()) == []
    assert store._end == 4000


def test_a_full_disk_is_told_with_the_folder(tmp_path):
    store = FileStore(tmp_path)
    with files_end_at(2000), pytest.raises(OSError, match="--keep-steps-in file") as raised:
        store.put((torch.ones(1000),))
    assert raised.value.errno == errno.EFBIG
    assert raised.value.filename == str(tmp_path)


def test_a_really_full_disk(tiny_disk):
    store = FileStore(tiny_disk)
    store.put((torch.ones(10_000),))
    with pytest.raises(OSError, match="No space left") as raised:
        store.put((torch.ones(10_000),))
    assert (raised.value.errno, raised.value.filename) == (errno.ENOSPC, str(tiny_disk))
    store._file.close()  # the traceback holds the store; the disk is to be taken away


def test_a_file_cut_short_is_noticed(tmp_path):
    store = FileStore(tmp_path)
    handle = store.put((torch.ones(1000),))
    store._file.truncate(3000)
    with pytest.raises(OSError, match="ends before its vectors"):
        store.get(handle)
