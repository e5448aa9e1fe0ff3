"""PNG plots of a teacher and of its training."""

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
from fairseq_l2t.inspection.training_log import TrainingLog
from fairseq_l2t.inspection.weights import Floats, WordWeights
from fairseq_l2t.storage import write_atomically

__all__ = ["finish_axes", "plot_coefficients", "plot_training", "plot_words", "save_figure", "shown_word"]

# Colours of the Okabe-Ito palette, which readers without red-green vision can distinguish.
_UP = ("#0072B2", "#56B4E9", "#009E73", "#004D73")
_DOWN = ("#D55E00", "#E69F00", "#CC79A7", "#8C3B00")
_GREY = "#444444"
_DOTS_PER_INCH = 130
_LABEL_GAP = 0.045
"""Smallest distance of two labels, as a share of the height of the axes."""
_MOST_ROWS = 40
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
    figure = Figure(figsize=(9, 5.2), layout="constrained")
    axes = figure.add_subplot()
    phi, progress = weights.coefficients, weights.progress
    for low, high, alpha in ((5, 95, 0.15), (25, 75, 0.3)):
        below, above = np.percentile(phi, [low, high], axis=1)
        label = f"{high - low} % of the words"
        axes.fill_between(progress, below, above, color=_GREY, alpha=alpha, linewidth=0, label=label)
    axes.plot(progress, phi.mean(axis=1), color="black", linewidth=2, label="mean over the words")
    if weights.smoothing is not None:
        axes.plot(progress, weights.smoothing, color="black", linewidth=2, linestyle="--", label="psi, of all words")
    ends, labels = [], []
    for order, colors in zip(weights.ranked(weights.change, words), (_UP, _DOWN), strict=True):
        for index, color in zip(order, colors, strict=False):
            axes.plot(progress, phi[:, index], color=color, linewidth=1.4)
            ends.append(phi[-1, index])
            labels.append((shown_word(weights.words[index]), color))
    _label_ends(axes, progress[-1], np.array(ends), labels)
    _second_scale(axes, weights)
    if cross_entropy_until > 0:
        label = "plain cross-entropy instead"
        axes.axvspan(0, cross_entropy_until, fill=False, hatch="//", edgecolor="0.75", linewidth=0, label=label)
    finish_axes(axes, "progress of the student's life", "coefficient Phi")
    axes.set_title("Coefficients of words over a student's life", loc="left", fontsize=11)
    figure.legend(loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    save_figure(figure, path)


def plot_words(path: str | os.PathLike[str], weights: WordWeights, *, words: int = 15) -> None:
    """Draw a heat map: the words most above and below the mean at the last stage, over a student's life.

    Raises:
        OSError: the file could not be written.
    """
    high, low = weights.ranked(weights.weights[-1], min(words, _MOST_ROWS))
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


def plot_training(path: str | os.PathLike[str], log: TrainingLog, *, entry: str = "word", pair: str = "pair") -> None:
    """Draw the training of a teacher from its log: measures, hypergradient norm, range of Phi.

    Args:
        path: the PNG file, written atomically.
        log: the log.
        entry: name of the unit that has a coefficient.
        pair: name of the unit of the dev set.

    Raises:
        OSError: the file could not be written.
    """
    figure = Figure(figsize=(9, 8), layout="constrained")
    measure, norms, phi = figure.subplots(3, 1, sharex=True)
    updates = log.column("teacher_update")
    for axes in (measure, norms, phi):
        _mark_lives(axes, log, updates)
    _draw(measure, log, "measure", f"measure on the dev {pair}s for training", _UP[1])
    _draw(measure, log, "holdout_measure", f"measure on the held-out dev {pair}s", _DOWN[0], marker="o")
    _draw_means(measure, log, updates)
    _draw(norms, log, "hypergradient_norm", "hypergradient (d measure / d theta)", _UP[0])
    _draw(norms, log, "adjoint_norm", "adjoint (d measure / d omega)", _DOWN[1])
    values = np.concatenate([log.column("hypergradient_norm"), log.column("adjoint_norm")])
    if np.any(np.isfinite(values)) and np.all(values[np.isfinite(values)] > 0):
        norms.set_yscale("log")
    low, high = log.column("phi_min"), log.column("phi_max")
    phi.fill_between(updates, low, high, color=_GREY, alpha=0.2, linewidth=0, label=f"lowest to highest {entry}")
    _draw(phi, log, "phi_mean", f"mean over the {entry}s", "black")
    _draw(phi, log, "phi_off_diagonal", "mean off the diagonal", _UP[0])
    for axes, label in ((measure, "measure"), (norms, "norm"), (phi, "coefficient Phi")):
        finish_axes(axes, "", label)
        # Above the panel, because inside it would cover a curve.
        place = {"loc": "lower right", "bbox_to_anchor": (1.0, 0.98), "ncols": 3}
        if axes.get_legend_handles_labels()[0]:  # a log may lack all fields of a panel
            axes.legend(**place, fontsize=8, frameon=False)
    phi.set_xlabel("teacher update (dotted: a new student begins)")
    figure.suptitle("Training of the teacher", fontsize=11)
    save_figure(figure, path)


def _draw(axes: Axes, log: TrainingLog, name: str, label: str, color: str, marker: str | None = None) -> None:
    """Draw one field of the log, one line per student life, so that no line joins two students."""
    x, y, lives = log.column("teacher_update"), log.column(name), log.column("student_life")
    known = np.isfinite(y)
    x, y, lives = x[known], y[known], lives[known]
    breaks = np.flatnonzero(np.diff(lives) != 0) + 1
    for number, part in enumerate(np.split(np.arange(len(x)), breaks)):
        if len(part):
            # A single point has no line.
            own_marker = marker or ("o" if len(part) == 1 else None)
            own_label = label if number == 0 else None
            axes.plot(x[part], y[part], color=color, label=own_label, linewidth=1.4, marker=own_marker, markersize=4)


def _draw_means(axes: Axes, log: TrainingLog, updates: Floats) -> None:
    """Draw the mean measure of each student life of several windows; it rises as the teacher improves."""
    measures, lives = log.column("measure"), log.column("student_life")
    label: str | None = "mean of the training measure over a student's life"
    for life in np.unique(lives[np.isfinite(lives)]):
        own = (lives == life) & np.isfinite(measures)
        if own.sum() > 1:  # the mean of one point would hide it
            ends = [updates[own].min() - 0.4, updates[own].max() + 0.4]
            axes.plot(ends, [measures[own].mean()] * 2, color="black", linewidth=2, label=label)
            label = None


def _mark_lives(axes: Axes, log: TrainingLog, updates: Floats) -> None:
    lives = log.column("student_life")
    starts = updates[1:][np.diff(lives) != 0]
    # With very many lives the lines would hide the curves.
    if len(starts) <= 60:
        for start in starts:
            axes.axvline(start - 0.5, color="0.8", linewidth=0.8, linestyle=":", zorder=0)


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
