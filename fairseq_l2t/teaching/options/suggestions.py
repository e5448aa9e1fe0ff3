"""The message for options that no parser knows, with the known names that look like them."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence

__all__ = ["similar_to", "unrecognized"]


def unrecognized(arguments: Sequence[str], known: Collection[str]) -> str:
    """Return the message for arguments that no parser takes.

    Args:
        arguments: as argparse returns them, values of unknown options included.
        known: the flags that exist, such as ``--teacher-lr``.
    """
    unknown = [argument.partition("=")[0] for argument in arguments if argument.startswith("--")]
    return f"unrecognized arguments: {' '.join(arguments)}{similar_to(unknown, known)}"


def similar_to(unknown: Sequence[str], known: Collection[str]) -> str:
    """Return "; did you mean --dropout?" for the closest known name of each unknown one; empty if none is close."""
    found = [match for name in unknown for match in difflib.get_close_matches(name, known, n=1, cutoff=0.75)]
    return f"; did you mean {' '.join(dict.fromkeys(found))}?" if found else ""
