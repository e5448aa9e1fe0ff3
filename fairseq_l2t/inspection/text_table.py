"""Columns that line up, also for words of wide or combining characters."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

__all__ = ["columns", "fit", "printable", "text_width"]


def text_width(text: str) -> int:
    """Return the number of terminal columns of ``text``."""
    return sum(_character_width(character) for character in text)


def fit(text: str, width: int) -> str:
    """Return ``text`` cut or padded with spaces to ``width`` columns; unprintable characters become ``?``."""
    shown = printable(text)
    if text_width(shown) > width:
        while text_width(shown) > width - 1:
            shown = shown[:-1]
        shown += "…"
    return shown + " " * (width - text_width(shown))


def printable(text: str) -> str:
    """Return ``text`` with ``?`` for every character a terminal could take for a command."""
    return "".join(character if character.isprintable() else "?" for character in text)


def columns(rows: Sequence[Sequence[str]], widths: Sequence[int], *, indent: int = 2) -> list[str]:
    """Return one line a row, its cells `fit` to ``widths``, two spaces apart."""
    return [
        (" " * indent + "  ".join(fit(cell, width) for cell, width in zip(row, widths, strict=True))).rstrip()
        for row in rows
    ]


def _character_width(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
