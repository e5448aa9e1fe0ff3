"""Markdown tables."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

from tabulate import tabulate

__all__ = ["markdown", "mean_and_range"]


def markdown(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return a table; cells are written as they are given."""
    cells = [[str(cell) for cell in row] for row in rows]
    return tabulate(cells, columns, tablefmt="github", disable_numparse=True) + "\n"


def mean_and_range(values: Sequence[float], form: str = ".2f") -> str:
    """Return "mean (least to greatest)"; of one value, the value."""
    spread = f" ({min(values):{form}} to {max(values):{form}})" if len(values) > 1 else ""
    return f"{mean(values):{form}}{spread}"
