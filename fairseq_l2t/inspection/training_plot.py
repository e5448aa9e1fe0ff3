"""PNG plot of the training of a teacher."""

from __future__ import annotations

import os

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fairseq_l2t.inspection.plots import DOWN, GREY, UP, finish_axes, save_figure
from fairseq_l2t.inspection.training_log import TrainingLog
from fairseq_l2t.inspection.weights import Floats

__all__ = ["plot_training"]


def plot_training(
    path: str | os.PathLike[str],
    log: TrainingLog,
    *,
    entry: str = "word",
    pair: str = "pair",
    beside: str = "psi",
    judged_after: bool = True,
) -> None:
    """Draw the training of a teacher from its log: measures, norms and coefficients, by updates of the teacher.

    A point at 0 is of the initial teacher. Quantities that cannot be compared have a panel each: the measures are of
    other examples and other lives, the norms are of gradients with respect to other parameters.

    Args:
        path: the PNG file, written atomically.
        log: the log.
        entry: name of the unit that has a coefficient.
        pair: name of the unit of the dev set.
        beside: name of the coefficients in the field ``phi_off_diagonal``.
        judged_after: whether held-back measures are of the teacher after the update, those of judging lives, or of the
            teacher before it.

    Raises:
        OSError: the file could not be written.
    """
    figure = Figure(figsize=(11, 8.5), layout="constrained")
    (measure, held_back), (hypergradient, adjoint), (phi, other) = figure.subplots(3, 2, sharex=True)
    made = log.column("teacher_update")
    before = made - 1
    panels = [
        (measure, "measure", f"measure on the dev {pair}s for training, after a window", UP[0]),
        (hypergradient, "hypergradient_norm", "norm of d measure / d theta (hypergradient)", UP[2]),
        (adjoint, "adjoint_norm", "norm of d measure / d omega (adjoint)", DOWN[1]),
        (phi, "phi_mean", f"Phi, mean over the {entry}s (grey: lowest to highest)", "black"),
        (other, "phi_off_diagonal", beside, UP[0]),
    ]
    low, high = log.column("phi_min"), log.column("phi_max")
    phi.fill_between(before, low, high, color=GREY, alpha=0.2, linewidth=0)
    for axes, name, title, color in panels:
        _mark_lives(axes, log, before)
        _draw(axes, log, name, color)
        _finish_panel(axes, title)
    _draw_means(measure, log, before)
    _draw_held_back(held_back, log, made if judged_after else before)
    _finish_panel(held_back, f"measure on the held-back dev {pair}s, which selects the teacher")
    for axes, name in ((hypergradient, "hypergradient_norm"), (adjoint, "adjoint_norm")):
        values = log.column(name)
        if np.nanmax(values, initial=0) > 10 * np.nanmin(values, initial=np.inf) > 0:
            axes.set_yscale("log")
    other.set_visible(bool(np.isfinite(log.column("phi_off_diagonal")).any()))
    for axes in (phi, other if other.get_visible() else adjoint):
        axes.set_xlabel("updates that the teacher had made (0: the initial teacher)")
        axes.tick_params(labelbottom=True)
    phi.set_xlim(-0.03 * max(1, made.max()) - 0.05, made.max() * 1.03 + 0.05)
    figure.suptitle("Training of the teacher", fontsize=11)
    save_figure(figure, path)


def _finish_panel(axes: Axes, title: str) -> None:
    finish_axes(axes, "", "")
    axes.set_title(title, loc="left", fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True))


def _draw(axes: Axes, log: TrainingLog, name: str, color: str) -> None:
    """Draw one field of the log by updates made before, one line per student life: no line joins two students."""
    x, y, lives = log.column("teacher_update") - 1, log.column(name), log.column("student_life")
    known = np.isfinite(y)
    x, y, lives = x[known], y[known], lives[known]
    breaks = np.flatnonzero(np.diff(lives) != 0) + 1
    for part in np.split(np.arange(len(x)), breaks):
        if len(part):
            # A single point has no line.
            axes.plot(
                x[part], y[part], color=color, linewidth=1.4, marker="o" if len(part) == 1 else None, markersize=4
            )


def _draw_held_back(axes: Axes, log: TrainingLog, updates: Floats) -> None:
    """Draw the held-back measures; that of the initial teacher is in the first line of the log."""
    x = np.concatenate([[0.0], updates])
    y = np.concatenate([log.column("initial_holdout_measure")[:1], log.column("holdout_measure")])
    known = np.isfinite(y)
    axes.plot(x[known], y[known], color=DOWN[0], linewidth=1, marker="o", markersize=4)


def _draw_means(axes: Axes, log: TrainingLog, updates: Floats) -> None:
    """Draw the mean measure of each student life of several windows; it rises as the teacher improves."""
    measures, lives = log.column("measure"), log.column("student_life")
    label: str | None = "mean over a life"
    for life in np.unique(lives[np.isfinite(lives)]):
        own = (lives == life) & np.isfinite(measures)
        if own.sum() > 1:  # the mean of one point would hide it
            ends = [updates[own].min() - 0.4, updates[own].max() + 0.4]
            axes.plot(ends, [measures[own].mean()] * 2, color="black", linewidth=2, label=label)
            label = None
    if label is None:
        axes.legend(fontsize=8, frameon=False)


def _mark_lives(axes: Axes, log: TrainingLog, updates: Floats) -> None:
    """Draw a dotted line where a new student begins, unless that is so at every update."""
    lives = log.column("student_life")
    starts = updates[1:][np.diff(lives) != 0]
    # With very many lives the lines would hide the curves.
    if len(starts) <= 60 and len(starts) < len(updates) - 1:
        for start in starts:
            axes.axvline(start - 0.5, color="0.6", linewidth=0.8, linestyle=":", zorder=0)
