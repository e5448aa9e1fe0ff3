"""Atomic writing: a file is either replaced completely or not changed.

``rename`` replaces a file in one step (POSIX). The new content is written to the disk before it (fsync of the file) and
the new name after it (fsync of the folder); without that, a power failure can leave an empty file under the new name.
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import stat
from collections.abc import Iterable
from pathlib import Path

__all__ = ["remove_leftovers", "write_atomically"]

_LEFTOVER = re.compile(r"\..+\.[0-9a-f]{16}\.partial")


def write_atomically(
    path: str | os.PathLike[str],
    parts: Iterable[bytes | memoryview],
    *,
    keep_previous: str | os.PathLike[str] | None = None,
) -> None:
    """Write the concatenation of ``parts`` to ``path``; readers see either the old content or the new content.

    A symbolic link is followed: the file it points to is replaced, not the link.

    Args:
        path: the file; its folder must exist.
        parts: the content, in order.
        keep_previous: path in the same folder to which the old file is renamed, after the new content is on the
            disk.

    Raises:
        OSError: the file could not be written (full disk, read-only folder, not a regular file); its filename is
            ``path``. The old file is unchanged and the temporary file is removed; if only the fsync of the folder
            failed, the new file is in place.
    """
    target = Path(os.path.realpath(path))
    temporary = target.parent / f".{target.name}.{secrets.token_hex(8)}.partial"
    try:
        _require_replaceable(target)
        try:
            _write_and_sync(temporary, parts)
            if keep_previous is not None and target.exists():
                os.replace(target, keep_previous)
            os.replace(temporary, target)
        except BaseException:  # KeyboardInterrupt too must not leave the temporary file
            temporary.unlink(missing_ok=True)
            raise
        _sync_folder(target.parent)
    except OSError as error:
        # Errors of write and fsync have no filename, and the name of the temporary file would mislead.
        raise OSError(error.errno, error.strerror or str(error), os.fspath(path)) from error


def remove_leftovers(folder: str | os.PathLike[str]) -> list[str]:
    """Delete the temporary files that killed processes left in ``folder``; return their names.

    No other process may write to the folder meanwhile (`storage.lock_run_folder`).
    """
    removed = []
    for entry in sorted(Path(folder).iterdir()):
        if _LEFTOVER.fullmatch(entry.name) and entry.is_file():
            entry.unlink(missing_ok=True)
            removed.append(entry.name)
    return removed


def _require_replaceable(target: Path) -> None:
    """Refuse to replace a folder, a device or a pipe (root could replace ``/dev/null``)."""
    try:
        mode = os.stat(target).st_mode
    except FileNotFoundError:
        return
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "not a regular file")


def _write_and_sync(path: Path, parts: Iterable[bytes | memoryview]) -> None:
    # Not tempfile.mkstemp: the file would keep its mode 0600 after the renaming, whatever the umask allows.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    with open(descriptor, "wb") as file:
        for part in parts:
            file.write(part)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network and overlay file systems cannot sync a folder.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)
