import os
import signal
import subprocess
import sys
from contextlib import ExitStack

import pytest

from fairseq_l2t.storage import RunFolderError, lock_run_folder
from tests.storage.files import without_privileges

HOLD = """
import os, sys, time
from fairseq_l2t.storage import lock_run_folder
with lock_run_folder(sys.argv[1]):
    begun, tell = os.pipe()
    if os.fork() == 0:       # a worker that outlives the run
        os.write(tell, b".")
        time.sleep(60)
        os._exit(0)
    os.read(begun, 1)        # by now it has forgotten the lock
    open(sys.argv[1] + "/.teacher.safetensors.0123456789abcdef.partial", "w").close()
    print("locked", flush=True)
    time.sleep(60)
"""


def test_two_runs_on_one_folder(tmp_path):
    folder = tmp_path / "a" / "run"
    with lock_run_folder(folder) as locked:
        assert locked == folder
        message = rf"run: another run \(process {os.getpid()}\)"
        with pytest.raises(RunFolderError, match=message), lock_run_folder(folder):
            pass
        with lock_run_folder(tmp_path / "other"):
            pass
    with lock_run_folder(folder):
        pass


def test_unlocked_after_an_error(tmp_path):
    with pytest.raises(KeyError), lock_run_folder(tmp_path):
        raise KeyError
    with lock_run_folder(tmp_path):
        pass


def test_the_lock_dies_with_its_process(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert process.stdout.readline() == "locked\n"
        with pytest.raises(RunFolderError, match=f"process {process.pid}"), lock_run_folder(tmp_path):
            pass
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        with lock_run_folder(tmp_path):
            assert os.listdir(tmp_path) == [".l2t.lock"]
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.stdout.close()


def test_a_forked_child_that_leaves_the_block_does_not_unlock(tmp_path):
    with ExitStack() as block:
        block.enter_context(lock_run_folder(tmp_path))
        child = os.fork()
        if child == 0:
            try:
                block.close()
            finally:
                os._exit(0)
        os.waitpid(child, 0)
        with pytest.raises(RunFolderError, match=f"process {os.getpid()}"), lock_run_folder(tmp_path):
            pass
    with lock_run_folder(tmp_path):
        pass


def test_read_only_folder(open_folder):
    with lock_run_folder(open_folder):
        pass
    (open_folder / ".l2t.lock").chmod(0o666)
    open_folder.chmod(0o555)
    refused = pytest.raises(RunFolderError, match="Permission denied")
    with without_privileges(), refused, lock_run_folder(open_folder):
        pass


def test_a_file_in_the_place_of_the_folder(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(RunFolderError, match=str(path)), lock_run_folder(path):
            pass
