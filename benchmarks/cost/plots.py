"""Plot of `benchmarks.cost.unroll`, and what it shares with that of `benchmarks.cost.scaling`."""

from __future__ import annotations

import io
import os
import statistics
from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter
from PIL import Image

from benchmarks.cost.group import PLAIN
from benchmarks.cost.report import Group, groups

__all__ = ["draw_unroll", "log_axes", "log_memory", "save"]

# Of Okabe and Ito's palette: ours in blues and greens, peers in reds and yellows.
COLORS = {
    PLAIN: "black",
    "ours": "#0072B2",
    "ours-gradients": "#56B4E9",
    "ours-graphs": "#009E73",
    "ours-fast": "#6A51A3",
    "ours-budget": "#00B7C3",
    "plain-autograd": "#D55E00",
    "higher": "#CC79A7",
    "torchopt": "#E69F00",
    "torchopt-meta": "#B8A000",
}
_DOTS_PER_INCH = 80
_MEBI = 2**20


def draw_unroll(path: str | os.PathLike[str], records: Sequence[dict], clock: str = "seconds") -> None:
    """Draw milliseconds a step and memory above plain updates against T, a row for each student.

    Raises:
        OSError: the file could not be written.
    """
    found = groups(records, clock)
    students = list(dict.fromkeys((group.size, group.family) for group in found))
    figure = Figure(figsize=(11, 1.0 + 3.2 * len(students)), layout="constrained")
    grid = figure.subplots(len(students), 2, squeeze=False)
    for (size, family), (time, memory) in zip(students, grid, strict=True):
        mine = sorted((g for g in found if (g.size, g.family) == (size, family)), key=lambda g: g.updates)
        _lines(time, mine, lambda group, name: [1000 * value for value in group.per_step(name)])
        _lines(memory, mine, lambda group, name: [] if name == PLAIN else _mebibytes(group, name))
        log_axes(time, [group.updates for group in mine], f"{family}, {size}\n\nms a step", from_zero=True)
        log_axes(memory, [group.updates for group in mine], "MiB above plain updates")
        log_memory(memory)
    for axes, title in zip(grid[0], ("Time of one unrolled step", "Peak resident memory"), strict=True):
        axes.set_title(title, loc="left", fontsize=10)
    names = [name for name in COLORS if any(name in group.ok for group in found)]
    handles = [Line2D([], [], **_style(name), label=name) for name in names]
    figure.legend(handles=handles, loc="outside lower center", ncols=5, frameon=False)
    save(figure, path)


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a PNG of 128 colors, which is all that a few lines need, in a third of the size."""
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=_DOTS_PER_INCH)
    Image.open(image).convert("RGB").quantize(128).save(path, format="png")


def _mebibytes(group: Group, name: str) -> list[float]:
    memory = group.memory(name)
    # A logarithm has no place for what takes no more than plain updates.
    return [] if memory is None else [max(memory / _MEBI, 1.0)]


def _style(name: str) -> dict:
    return {"color": COLORS[name], "linestyle": "--" if name == PLAIN else "-", "marker": "o", "markersize": 4}


def _lines(axes: Axes, mine: list[Group], values: Callable[[Group, str], list[float]]) -> None:
    for name in COLORS:
        points = [(group.updates, values(group, name)) for group in mine if name in group.ok]
        points = [(updates, column) for updates, column in points if column]
        if points:
            x, columns = zip(*points, strict=True)
            axes.plot(x, [statistics.median(column) for column in columns], **_style(name))
            low, high = [min(column) for column in columns], [max(column) for column in columns]
            axes.fill_between(x, low, high, color=COLORS[name], alpha=0.13, linewidth=0)


def log_memory(axes: Axes) -> None:
    """Count memory on a logarithmic axis, in plain numbers."""
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:,g}")
    axes.yaxis.set_minor_formatter(NullFormatter())


def log_axes(axes: Axes, ticks: Sequence[int], label: str, *, from_zero: bool = False) -> None:
    """Count T on a logarithmic axis with ``ticks``."""
    axes.set_xscale("log")
    axes.set_xticks(sorted(set(ticks)), [f"{tick:,}" for tick in sorted(set(ticks))])
    axes.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
    axes.set_xlabel("updates T")
    axes.set_ylabel(label)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if from_zero:
        axes.set_ylim(bottom=0)
