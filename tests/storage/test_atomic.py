import errno
import os
import stat

import pytest

from fairseq_l2t.storage import remove_leftovers, write_atomically
from tests.storage.files import files_end_at, without_privileges

OLD, NEW = b"old content", bytes(range(256)) * 40


def test_new_file_and_replaced_file(tmp_path):
    path = tmp_path / "file"
    write_atomically(path, [OLD])
    assert path.read_bytes() == OLD
    write_atomically(path, [NEW[:100], memoryview(NEW)[100:]])
    assert path.read_bytes() == NEW
    assert os.listdir(tmp_path) == ["file"]


def test_mode_follows_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "file", [NEW])
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


def test_previous_content_is_kept_on_request(tmp_path):
    path, previous = tmp_path / "file", tmp_path / "previous"
    write_atomically(path, [b"1"], keep_previous=previous)
    assert not previous.exists()
    write_atomically(path, [b"2"], keep_previous=previous)
    assert (path.read_bytes(), previous.read_bytes()) == (b"2", b"1")


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 8191, len(NEW) - 1])
def test_disk_full_at_any_byte_leaves_the_old_file(tmp_path, size):
    path, previous = tmp_path / "file", tmp_path / "previous"
    path.write_bytes(OLD)
    with files_end_at(size), pytest.raises(OSError, match="file") as caught:
        write_atomically(path, [NEW], keep_previous=previous)
    assert caught.value.filename == str(path)
    assert path.read_bytes() == OLD
    assert os.listdir(tmp_path) == ["file"]


def test_disk_of_just_the_right_size_is_enough(tmp_path):
    with files_end_at(len(NEW)):
        write_atomically(tmp_path / "file", [NEW])
    assert (tmp_path / "file").read_bytes() == NEW


def test_full_file_system(tiny_disk):
    path = tiny_disk / "file"
    write_atomically(path, [OLD])
    with pytest.raises(OSError, match="No space left") as caught:
        write_atomically(path, [b"x" * 100_000])
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(path))
    assert path.read_bytes() == OLD
    assert os.listdir(tiny_disk) == ["file"]
    write_atomically(path, [NEW])
    assert path.read_bytes() == NEW


def test_read_only_folder(open_folder):
    path = open_folder / "file"
    path.write_bytes(OLD)
    open_folder.chmod(0o555)
    with without_privileges(), pytest.raises(PermissionError) as caught:
        write_atomically(path, [NEW])
    assert caught.value.filename == str(path)
    assert path.read_bytes() == OLD
    assert os.listdir(open_folder) == ["file"]


def test_interrupt_leaves_no_temporary_file(tmp_path):
    def parts():
        yield NEW
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "file", parts())
    assert os.listdir(tmp_path) == []


def test_only_regular_files_are_replaced(tmp_path):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name, error in (("folder", IsADirectoryError), ("pipe", OSError)):
        with pytest.raises(error, match=name):
            write_atomically(tmp_path / name, [NEW])
    assert sorted(os.listdir(tmp_path)) == ["folder", "pipe"]
    with pytest.raises(FileNotFoundError, match="absent/file"):
        write_atomically(tmp_path / "absent" / "file", [NEW])


def test_link_is_followed(tmp_path):
    (tmp_path / "real").write_bytes(OLD)
    (tmp_path / "link").symlink_to("real")
    write_atomically(tmp_path / "link", [NEW])
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == NEW


def test_leftovers_of_killed_writers_are_removed_and_nothing_else(tmp_path):
    kept = [".file.partial", "file.0123456789abcdef.partial", ".l2t.lock", "teacher.safetensors"]
    for name in [*kept, ".file.0123456789abcdef.partial"]:
        (tmp_path / name).write_bytes(OLD)
    assert remove_leftovers(tmp_path) == [".file.0123456789abcdef.partial"]
    assert sorted(os.listdir(tmp_path)) == sorted(kept)
