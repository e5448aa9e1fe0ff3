"""One run a folder: an advisory lock that dies with its process, however that ends."""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fairseq_l2t.storage.atomic import remove_leftovers

__all__ = ["LOCK_NAME", "RunFolderError", "lock_run_folder"]

LOCK_NAME = ".l2t.lock"

_held: set[int] = set()


class RunFolderError(OSError):
    """A folder that a run cannot have for itself; one line that names it."""


def _forget_locks() -> None:
    # A forked worker shares the lock: had it a copy, the folder would stay locked after the run's own death.
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_forget_locks)


@contextmanager
def lock_run_folder(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """Make ``folder`` where absent, lock it and yield its path; unlock it at the end.

    The lock is `flock`'s: the kernel drops it with the process, so that no stale lock outlives a SIGKILL; the
    file `LOCK_NAME` stays. Temporary files that a killed run left inside a write are removed.

    Raises:
        RunFolderError: another run holds it, or nothing can be written there.
    """
    folder = Path(folder)
    descriptor = _open_lock_file(folder)
    try:
        _take_lock(folder, descriptor)
        _held.add(descriptor)
        remove_leftovers(folder)
        yield folder
    finally:
        # Not held any more in a forked child that leaves this block: it has closed the descriptor already.
        if descriptor in _held:
            _held.remove(descriptor)
            os.close(descriptor)


def _open_lock_file(folder: Path) -> int:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # A lock file can be writable where the folder is not: try what writing a result will need, a new
        # name.
        probe = folder / f".probe.{secrets.token_hex(8)}.partial"
        os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        probe.unlink()
        return os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        reason = error.strerror or str(error)
        raise RunFolderError(f"{folder}: {reason}; expected a folder that can be written to") from error


def _take_lock(folder: Path, descriptor: int) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        owner = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
        os.close(descriptor)
        if not isinstance(error, BlockingIOError):
            raise RunFolderError(f"{folder}: cannot be locked: {error.strerror}") from error
        process = f" (process {owner})" if owner.isdigit() else ""
        raise RunFolderError(f"{folder}: another run{process} is using this folder") from error
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
