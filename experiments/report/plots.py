"""Plots of grids: learning curves, teachers, and shares of the gradient."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from matplotlib.figure import Figure

from fairseq_l2t.storage import write_atomically

__all__ = ["draw_curves", "draw_shares", "draw_teachers", "line_style"]

_COLORS = ("#000000", "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9")
_DASHES = ("-", "--", ":", "-.")
_Curve = Sequence[tuple[int, float]]


def line_style(number: int) -> tuple[str, str]:
    """Return color and dashes of a line by its number from 0; the first 28 differ."""
    return _COLORS[number % len(_COLORS)], _DASHES[number // len(_COLORS) % len(_DASHES)]


def draw_curves(losses: Sequence[str], panels: Mapping[str, Mapping[str, Sequence[_Curve]]], path: Path) -> None:
    """Draw dev BLEU over updates, a panel for each setting and student, the mean over the seeds in bold.

    Args:
        losses: a line each.
        panels: by title, the curves of each loss.
        path: a PNG file.
    """
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(4.2 * columns, 3.0 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for axis, (title, curves) in zip(axes, panels.items(), strict=False):
        for number, loss in enumerate(losses):
            color, line = line_style(number)
            for curve in curves[loss]:
                axis.plot(*zip(*curve, strict=True), color=color, linestyle=line, linewidth=0.6, alpha=0.5)
            points: list[dict[int, float]] = [{update: bleu for update, bleu in curve} for curve in curves[loss]]
            shared = sorted(set.intersection(*map(set, points))) if points else []
            values = [mean(one[update] for one in points) for update in shared]
            axis.plot(shared, values, color=color, linestyle=line, linewidth=1.8, label=loss)
        axis.set_title(title, loc="left", fontsize=9)
        axis.grid(color="0.92")
        axis.set_xlabel("updates", fontsize=8)
        axis.set_ylabel("dev BLEU", fontsize=8)
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    _add_legend(figure, axes[0], 2 * columns)
    _save(figure, path)


def draw_teachers(teachers: Mapping[str, Sequence[Mapping[str, Any]]], path: Path) -> None:
    """Draw the training of teachers: the measure on dev over teacher updates (the paper's Figure 3), mean coefficient,
    norm of the hypergradient, and the pull on the coefficients along the window.

    Args:
        teachers: by label, the lines of the teacher's log.
        path: a PNG file.
    """
    figure = Figure(figsize=(15, 3.8), layout="constrained")
    axes = figure.subplots(1, 4)
    for number, (label, lines) in enumerate(teachers.items()):
        x = [line["teacher_update"] for line in lines]
        dashes = _DASHES[number // 10 % 3]
        style = {"color": f"C{number % 10}", "linestyle": dashes, "marker": ".", "label": label}
        for axis, name in zip(axes, ("measure", "phi_mean", "hypergradient_norm"), strict=False):
            axis.plot(x, [line[name] for line in lines], **style, linewidth=0.6 if name == "measure" else 1.5)
        judged = [
            (one["teacher_update"], one["holdout_measure"]) for one in lines if one["holdout_measure"] is not None
        ]
        if judged:
            axes[0].plot(*zip(*judged, strict=True), **{**style, "label": None}, linewidth=2.2)
        pulls = [mean(tenth) for tenth in zip(*(line["pull_by_tenth"] for line in lines), strict=True)]
        axes[3].plot([(tenth + 0.5) / len(pulls) for tenth in range(len(pulls))], pulls, **style)
    titles = (
        "measure on dev, bold: on held-back pairs",
        "mean coefficient",
        "norm of the hypergradient",
        "pull on all coefficients, mean of windows",
    )
    for axis, title in zip(axes, titles, strict=True):
        axis.set_title(title, loc="left", fontsize=9)
        axis.set_xlabel("teacher updates", fontsize=8)
        axis.grid(color="0.92")
    axes[2].set_yscale("log")
    axes[3].set_xlabel("share of the window", fontsize=8)
    axes[3].axhline(0, color="0.4", linewidth=0.8)
    _add_legend(figure, axes[0], 4)
    _save(figure, path)


def draw_shares(shares: Mapping[str, Sequence[Mapping[str, float]]], path: Path) -> None:
    """Draw the share of the gradient that misaligned pairs get over the updates, a line for each name."""
    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.subplots()
    for number, (name, lines) in enumerate(shares.items()):
        color, dashes = line_style(number)
        x, y = [line["update"] for line in lines], [100 * line["share"] for line in lines]
        axes.plot(x, y, color=color, linestyle=dashes, label=name)
    tokens = next(iter(shares.values()))[0]["tokens"]
    axes.axhline(100 * tokens, color="0.5", linewidth=0.8, linestyle="--", label="their share of the tokens")
    axes.set_ylim(bottom=0)
    axes.set_xlabel("updates")
    axes.set_ylabel("% of the gradient")
    axes.set_title("Gradient that goes to tokens of misaligned pairs", loc="left", fontsize=10)
    axes.grid(color="0.92")
    axes.legend(frameon=False, fontsize=8)
    _save(figure, path)


def _add_legend(figure: Figure, axis: Any, columns: int) -> None:
    handles = axis.get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=8)


def _save(figure: Figure, path: Path) -> None:
    """Write a PNG, whole or not at all."""
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=110)
    write_atomically(path, [image.getbuffer()])
