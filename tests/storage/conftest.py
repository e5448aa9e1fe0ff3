import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest


@pytest.fixture
def open_folder():
    """A folder whose parents anybody may enter; pytest's tmp_path lies below one of mode 0700."""
    folder = Path(tempfile.mkdtemp(prefix="l2t_test_"))
    folder.chmod(0o755)
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


@pytest.fixture
def tiny_disk(tmp_path):
    """A file system of 64 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("mounting a tmpfs is not allowed here; RLIMIT_FSIZE stands in for it in other tests")
    yield place
    subprocess.run(["umount", str(place)], check=True)
