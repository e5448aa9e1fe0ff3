"""Text tables whose columns line up, also for words with wide or combining characters."""

from __future__ import annotations

from collections.abc import Sequence

from tabulate import tabulate
from wcwidth import wcswidth

__all__ = ["columns", "fit", "printable"]

_INDENT = "  "


def columns(rows: Sequence[Sequence[str]], alignment: str) -> list[str]:
    """Return one indented line per row, its cells two spaces apart.

    Args:
        rows: cells of equal number in every row; a first row of headings is a row like the others.
        alignment: one letter per column, "l" for left and "r" for right.
    """
    sides = {"l": "left", "r": "right"}
    text = tabulate(
        rows, tablefmt="plain", disable_numparse=True, colalign=tuple(sides[letter] for letter in alignment)
    )
    return [(_INDENT + line).rstrip() for line in text.split("\n")]


def fit(text: str, width: int) -> str:
    """Return ``text`` cut to at most ``width`` terminal columns; unprintable characters become ``?``."""
    shown = printable(text)
    if wcswidth(shown) <= width:
        return shown
    while wcswidth(shown) > width - 1:
        shown = shown[:-1]
    return shown + "…"


def printable(text: str) -> str:
    """Return ``text`` with ``?`` for every character a terminal could take for a command."""
    return "".join(character if character.isprintable() else "?" for character in text)
