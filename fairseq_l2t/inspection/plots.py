"""PNG plots of a teacher's coefficients, and what all plots share."""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure

from fairseq_l2t.inspection.text_table import printable
from fairseq_l2t.inspection.weights import Floats, WordWeights
from fairseq_l2t.storage import write_atomically

__all__ = ["DOWN", "GREY", "UP", "finish_axes", "plot_coefficients", "plot_words", "save_figure", "shown_word"]

# Colours of the Okabe-Ito palette, which readers without red-green vision can distinguish.
UP = ("#0072B2", "#56B4E9", "#009E73", "#004D73")
DOWN = ("#D55E00", "#E69F00", "#CC79A7", "#8C3B00")
GREY = "#444444"
_DOTS_PER_INCH = 130
_LABEL_GAP = 0.045
"""Smallest distance of two labels, as a share of the height of the axes."""
_LARGEST_ROW_COUNT = 40
"""Most words in each direction in the heat map."""


def plot_coefficients(
    path: str | os.PathLike[str], weights: WordWeights, *, words: int = 4, cross_entropy_until: float = 0.0
) -> None:
    """Draw Phi over a student's life: mean, percentiles, and the words whose weight rises and falls most.

    Args:
        path: the PNG file, written atomically.
        weights: weights at many stages.
        words: number of words in each direction.
        cross_entropy_until: progress up to which students train with plain cross-entropy; shaded.

    Raises:
        OSError: the file could not be written.
    """
    figure = Figure(figsize=(9, 5.2 if weights.smoothing is None else 7), layout="constrained")
    if weights.smoothing is None:
        axes = lowest = figure.add_subplot()
    else:
        axes, lowest = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
        _draw_smoothing(lowest, weights.progress, weights.smoothing)
    phi, progress = weights.coefficients, weights.progress
    for low, high, alpha in ((5, 95, 0.15), (25, 75, 0.3)):
        below, above = np.percentile(phi, [low, high], axis=1)
        label = f"{high - low} % of the words"
        axes.fill_between(progress, below, above, color=GREY, alpha=alpha, linewidth=0, label=label)
    axes.plot(progress, phi.mean(axis=1), color="black", linewidth=2, label="mean over the words")
    ends, labels = [], []
    for order, colors in zip(weights.ranked(weights.change, words), (UP, DOWN), strict=True):
        for index, color in zip(order, colors, strict=False):
            axes.plot(progress, phi[:, index], color=color, linewidth=1.4)
            ends.append(phi[-1, index])
            labels.append((shown_word(weights.words[index]), color))
    _label_ends(axes, progress[-1], np.array(ends), labels)
    _second_scale(axes, weights)
    if cross_entropy_until > 0:
        label = "plain cross-entropy instead"
        axes.axvspan(0, cross_entropy_until, fill=False, hatch="//", edgecolor="0.75", linewidth=0, label=label)
    finish_axes(axes, "", "coefficient Phi")
    axes.set_title("Phi: coefficients of words over a student's life", loc="left", fontsize=11)
    lowest.set_xlabel("progress of the student's life")
    figure.legend(loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    save_figure(figure, path)


def _draw_smoothing(axes: Axes, progress: Floats, smoothing: Floats) -> None:
    """Draw psi on axes of its own: on those of Phi, which is several times as large, it would flatten the words."""
    axes.plot(progress, smoothing, color="black", linewidth=2)
    axes.set_title("psi: coefficient of the mean log-probability of all words", loc="left", fontsize=11)
    if smoothing.min() >= 0:
        axes.set_ylim(0, 1.1 * max(float(smoothing.max()), 1e-9))
    finish_axes(axes, "", "coefficient psi")


def plot_words(path: str | os.PathLike[str], weights: WordWeights, *, words: int = 15) -> None:
    """Draw a heat map: the words most above and below the mean at the last stage, over a student's life.

    Raises:
        OSError: the file could not be written.
    """
    high, low = weights.ranked(weights.weights[-1], min(words, _LARGEST_ROW_COUNT))
    chosen = [*high, *reversed(low)]
    weight = weights.weights
    relative = (weight - weight.mean(axis=1, keepdims=True))[:, chosen].T
    # 1e-9: the scale needs an extent also if all words have the same weight.
    limit = max(float(np.abs(relative).max()), 1e-9)
    figure = Figure(figsize=(9, 1.2 + 0.22 * len(chosen)), layout="constrained")
    axes = figure.add_subplot()
    norm = TwoSlopeNorm(0.0, -limit, limit)
    mesh = axes.pcolormesh(
        weights.progress, np.arange(len(chosen)), relative, cmap="RdBu_r", norm=norm, shading="nearest"
    )
    axes.set_yticks(range(len(chosen)), [shown_word(weights.words[index]) for index in chosen], fontsize=8)
    axes.invert_yaxis()
    axes.axhline(len(high) - 0.5, color="black", linewidth=0.8)
    axes.set_xlabel("progress of the student's life")
    title = "Weight of words minus the mean (red: above it), ordered by the last stage"
    axes.set_title(title, loc="left", fontsize=11)
    figure.colorbar(mesh, ax=axes, label="weight minus the mean weight", pad=0.02)
    save_figure(figure, path)


def _second_scale(axes: Axes, weights: WordWeights) -> None:
    shape = weights.shape
    slope = (1 - shape.cross_entropy_mix) * shape.scale / 4
    if slope == 0:
        return
    scale = axes.secondary_yaxis(
        "left",
        functions=(
            lambda phi: shape.cross_entropy_mix + slope * np.asarray(phi),
            lambda weight: (np.asarray(weight) - shape.cross_entropy_mix) / slope,
        ),
    )
    scale.spines["left"].set_position(("outward", 58))
    scale.set_ylabel("weight (1: as plain cross-entropy)")


def _label_ends(axes: Axes, x: float, ends: Floats, labels: Sequence[tuple[str, str]]) -> None:
    """Write each label at the right end of its line; labels that would overlap are moved apart."""
    bottom, top = axes.get_ylim()
    axes.set_ylim(bottom, top)
    places = _spread((ends - bottom) / (top - bottom), _LABEL_GAP)
    for (word, color), end, place in zip(labels, ends, places, strict=True):
        axes.annotate(
            word,
            xy=(x, end),
            xytext=(1.03, place),
            textcoords="axes fraction",
            color=color,
            fontsize=9,
            va="center",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": color, "linewidth": 0.6, "shrinkA": 1, "shrinkB": 0},
        )


def _spread(places: Floats, gap: float) -> Floats:
    """Return ``places`` moved apart, in their order, so that neighbours are at least ``gap`` apart."""
    order = np.argsort(places, kind="stable")
    spread = places[order]
    for index in range(1, len(spread)):
        spread[index] = max(spread[index], spread[index - 1] + gap)
    # Labels above the top move down and push the others down.
    ceiling = max(1.0, float(places.max(initial=0.0)))
    for index in range(len(spread) - 1, -1, -1):
        spread[index] = min(spread[index], ceiling)
        ceiling = spread[index] - gap
    result = np.empty_like(spread)
    result[order] = spread
    return result


def finish_axes(axes: Axes, x: str, y: str) -> None:
    """Label the axes, draw a grid and remove the upper and right borders."""
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.margins(x=0.01)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def shown_word(word: str) -> str:
    """Return a word as a label shows it: cut, on one line, without dollar signs, which begin formulas."""
    shown = printable(word)
    return (shown if len(shown) <= 18 else shown[:17] + "…").replace("$", r"\$")


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a PNG file atomically; the same figure gives the same bytes."""
    image = io.BytesIO()
    with warnings.catch_warnings():
        # Words in scripts that the font lacks are drawn as boxes; the text table shows them.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(image, format="png", dpi=_DOTS_PER_INCH, metadata={"Software": None})
    write_atomically(Path(path), [image.getbuffer()])
