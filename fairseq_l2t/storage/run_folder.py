"""One run per folder: an advisory lock that ends with its process, even by SIGKILL."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from fairseq_l2t.storage.atomic import remove_leftovers

__all__ = ["LOCK_NAME", "RunFolderError", "lock_run_folder"]

LOCK_NAME = ".l2t.lock"
_LONGEST_PROCESS_ID = 32
"""Bytes of the lock file that are read: a number and a newline."""


class RunFolderError(OSError):
    """A run folder that cannot be locked or written to; the message is one line that names the folder."""


@contextmanager
def lock_run_folder(folder: str | os.PathLike[str], option: str = "--save-dir") -> Iterator[Path]:
    """Create ``folder`` if it is absent, lock it, yield its path, and unlock it at the end.

    Args:
        folder: of the run.
        option: the option that gives it, for messages.

    The lock is ``flock`` by the library filelock: the kernel releases it with the process, and forked children do not
    keep it. The lock file `LOCK_NAME` stays and holds the owner's process number, for the error that a second run
    gets. Temporary files of a run that was killed while it wrote are removed.

    Raises:
        RunFolderError: another run has locked the folder, or it cannot be written to.
    """
    folder = Path(folder)
    _require_writable(folder, option)
    # A folder is locked for the process, not for a thread; a file system without flock is refused (no soft lock).
    lock = FileLock(
        folder / LOCK_NAME,
        blocking=False,
        thread_local=False,
        preserve_lock_file=True,
        fallback_to_soft=False,
        on_acquired=_write_process_id,
    )
    try:
        lock.acquire()
    except Timeout as error:
        raise RunFolderError(f"{option}: {folder}: another run{_owner(folder)} is using this folder") from error
    except OSError as error:
        raise RunFolderError(f"{option}: {folder}: cannot be locked: {error.strerror or error}") from error
    try:
        remove_leftovers(folder)
        yield folder
    finally:
        lock.release()


def _require_writable(folder: Path, option: str) -> None:
    """Create the folder and a new file in it: a lock file may be writable where the folder is not."""
    probe = folder / f".probe.{secrets.token_hex(8)}.partial"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch(mode=0o600, exist_ok=False)
        probe.unlink()
    except OSError as error:
        reason = error.strerror or str(error)
        raise RunFolderError(f"{option}: {folder}: {reason}; expected a folder that can be written to") from error


def _write_process_id(descriptor: int) -> None:
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)


def _owner(folder: Path) -> str:
    """The process in the lock file, as words for an error; empty where the file does not say."""
    try:
        with open(folder / LOCK_NAME, "rb") as file:
            text = file.read(_LONGEST_PROCESS_ID).decode("ascii", "replace").strip()
    except OSError:
        return ""
    return f" (process {text})" if text.isdigit() else ""
