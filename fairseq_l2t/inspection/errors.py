"""The error that inspection raises, and the limit of the text files it reads."""

from __future__ import annotations

import errno
import os

__all__ = ["InspectionError", "require_moderate_size"]

MOST_BYTES = 2**30
"""Of a dictionary or log, which are read whole."""


class InspectionError(ValueError):
    """Invalid user input; the message is one line that names the file or option."""


def require_moderate_size(path: str | os.PathLike[str]) -> None:
    """Refuse a text file that would fill the memory, for example a sparse file.

    Raises:
        OSError: the file is absent or has more than `MOST_BYTES` bytes.
    """
    size = os.stat(path).st_size
    if size > MOST_BYTES:
        raise OSError(errno.EFBIG, f"{size} bytes; expected at most {MOST_BYTES}")
