"""Files that are either wholly written or not touched at all.

POSIX lets ``rename`` swap a file in one step; what must stand on the disk before is the new content (fsync of
the file), and after it the name (fsync of the folder), or a power cut can leave an empty file behind the new
name.
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
    """Write the concatenation of ``parts`` to ``path``; readers see the old content or the new, no mixture.

    A symbolic link is followed, so that the file it points to is replaced and not the link.

    Args:
        path: the file; its folder must exist.
        parts: the content, in order.
        keep_previous: where the old content goes, in the same folder, once the new content is safely on the
            disk.

    Raises:
        OSError: with ``path`` as its filename (disk full, read-only folder, not a regular file ...). The old
            file is then as it was and the temporary file is gone; should only the folder's own fsync fail,
            the new file is in place.
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
        except BaseException:  # also KeyboardInterrupt: nothing may be left lying about
            temporary.unlink(missing_ok=True)
            raise
        _sync_folder(target.parent)
    except OSError as error:
        # The errors of write and fsync carry no name, that of the temporary file would mislead.
        raise OSError(error.errno, error.strerror or str(error), os.fspath(path)) from error


def remove_leftovers(folder: str | os.PathLike[str]) -> list[str]:
    """Delete temporary files that killed processes left in ``folder``; return their names.

    Call it only where no other process can be writing (under `storage.lock_run_folder`).
    """
    removed = []
    for entry in sorted(Path(folder).iterdir()):
        if _LEFTOVER.fullmatch(entry.name) and entry.is_file():
            entry.unlink(missing_ok=True)
            removed.append(entry.name)
    return removed


def _require_replaceable(target: Path) -> None:
    """Refuse to rename over a folder, a device or a pipe (as root, ``/dev/null`` could be replaced)."""
    try:
        mode = os.stat(target).st_mode
    except FileNotFoundError:
        return
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "not a regular file")


def _write_and_sync(path: Path, parts: Iterable[bytes | memoryview]) -> None:
    # Not tempfile.mkstemp: its mode 0600 would outlive the renaming, whatever the umask allows.
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
        # Some network and overlay file systems cannot sync a folder; the rename is then theirs to keep.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)
