"""Draw the picture of the README: the loop that trains a teacher, and a loss that one teacher learned.

python docs/make_pictures.py --teacher-dir DIR

DIR is a folder that l2t-train-teacher wrote: the curves are those of its teacher.safetensors and teacher_log.jsonl.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from fairseq_l2t.inspection import choose_states, read_training_log
from fairseq_l2t.storage import load_teacher

ROOT = Path(__file__).resolve().parent.parent
TEACHER_DIR = ROOT / "experiments" / "kept" / "translation" / "cpu" / "multi30k.noise30" / "teachers" / "dynamic"
PICTURE = ROOT / "docs" / "pictures" / "loop.png"

BLUE, ORANGE, GREEN, GREY, INK = "#0072B2", "#D55E00", "#009E73", "#666666", "#222222"
BOX_WIDTH, BOX_HEIGHT = 2.6, 1.0
CURVE_POINTS = 201


def draw_loop(axes: Axes) -> None:
    """Draw the six stages of a teacher update and the arrows between them."""
    axes.set(xlim=(0, 10.2), ylim=(0, 6.6))
    axes.axis("off")
    left, middle, right, top, bottom = 1.5, 5.1, 8.7, 5.0, 1.35
    _box(axes, left, top, "student state $s_t$", "progress, losses, accuracies", GREY)
    _box(axes, middle, top, "teacher", r"$\Phi_t = W\,\mathrm{softmax}(V s_t)$", BLUE)
    _box(axes, right, top, r"coefficients $\Phi_t$", "of the loss of update $t$", BLUE)
    _box(axes, right, bottom, "student update", "batch, dropout, optimizer", INK)
    _box(axes, middle, bottom, "dev measure", r"of the student $\omega_T$", GREEN)
    _box(axes, left, bottom, "hypergradient", r"$d\,$measure$\,/\,d\,(W, V)$", ORANGE)
    half = BOX_WIDTH / 2
    _arrow(axes, (left + half, top), (middle - half, top), INK)
    _arrow(axes, (middle + half, top), (right - half, top), INK)
    _arrow(axes, (right, top - BOX_HEIGHT / 2), (right, bottom + BOX_HEIGHT / 2), INK)
    _arrow(axes, (right - half, bottom), (middle + half, bottom), INK)
    _arrow(axes, (middle - half, bottom), (left + half, bottom), ORANGE)
    # The inner loop: the updated student has a new state.
    corner = 3.15
    axes.plot([right - 0.8, right - 0.8, left], [bottom + BOX_HEIGHT / 2, corner, corner], color=INK, linewidth=1.4)
    _arrow(axes, (left, corner), (left, top - BOX_HEIGHT / 2), INK)
    axes.text(middle - 0.4, corner + 0.13, "T times: the updated student has a new state", ha="center", fontsize=9)
    axes.text(middle + half + 0.5, bottom + 0.13, "after T", ha="center", fontsize=9)
    # The outer loop: one step of the teacher.
    axes.plot([left - half, 0.05, 0.05, middle], [bottom, bottom, 6.15, 6.15], color=ORANGE, linewidth=1.6)
    _arrow(axes, (middle, 6.15), (middle, top + BOX_HEIGHT / 2), ORANGE)
    axes.text(0.2, 6.27, "one teacher update", color=ORANGE, fontsize=9)
    note = "The gradient of the measure goes back through all T updates, exactly."
    axes.text(middle, 0.3, note, ha="center", fontsize=9.5, color=ORANGE)


def draw_weights(axes: Axes, folder: Path) -> None:
    """Draw the weight of a target word over a student's life, in units of cross-entropy's."""
    file, log = load_teacher(folder / "teacher.safetensors"), read_training_log(folder / "teacher_log.jsonl")
    progress = np.linspace(0, 1, CURVE_POINTS)
    states = torch.tensor(choose_states(file, log).at(progress)).to(file.teacher.values)
    with torch.no_grad():
        phi = torch.stack([file.teacher(state) for state in states]).double().numpy()
    # The slope of the sigmoid is 1/4 where the product of Phi and log p is small.
    weights = phi * file.settings.loss_shape.scale / 4
    words, all_words = weights[:, : file.teacher.entries], weights[:, -1]
    low, high = np.percentile(words, [5, 95], axis=1)
    until = file.settings.cross_entropy_updates / file.settings.total_updates
    taught = progress >= until
    x = progress[taught]
    axes.plot([0, until], [1, 1], color=GREY, linewidth=2)
    axes.axhline(1, color=GREY, linewidth=1, linestyle=":")
    axes.text(1, 0.86, "cross-entropy: 1 for every word", color=GREY, fontsize=8.5, ha="right")
    axes.fill_between(x, low[taught], high[taught], color=BLUE, alpha=0.2, linewidth=0)
    axes.plot(x, words.mean(axis=1)[taught], color=BLUE, linewidth=2)
    axes.plot(x, all_words[taught], color=ORANGE, linewidth=2, linestyle="--")
    axes.text(1, 1.27, "target word: mean, and 90 % of words", color=BLUE, fontsize=8.5, ha="right")
    axes.text(1, 0.24, "all words, as in label smoothing", color=ORANGE, fontsize=8.5, ha="right")
    axes.set(xlim=(0, 1), ylim=(0, 2.2), xlabel="progress of the student's life", ylabel="weight in the loss")
    axes.set_title("A learned loss", loc="left", fontsize=10.5)
    _plain(axes)


def draw_measure(axes: Axes, folder: Path) -> None:
    """Draw the held-back measure after each teacher update."""
    lines = read_training_log(folder / "teacher_log.jsonl").lines
    updates = [line["teacher_update"] for line in lines]
    axes.plot(
        updates, [line["holdout_measure"] for line in lines], color=GREEN, linewidth=1.6, marker="o", markersize=4
    )
    axes.set(xlabel="teacher update", ylabel="measure", xticks=updates)
    axes.set_title("Measure on held-back dev pairs", loc="left", fontsize=10.5)
    _plain(axes)


def draw(folder: Path, path: Path) -> None:
    """Write the picture of the teacher in ``folder`` to ``path``, a PNG file."""
    figure = Figure(figsize=(12.6, 4.6), layout="constrained", facecolor="white")
    loop, curves = figure.subfigures(1, 2, width_ratios=(1.75, 1))
    draw_loop(loop.subplots())
    above, below = curves.subplots(2, 1, height_ratios=(1.7, 1))
    draw_weights(above, folder)
    draw_measure(below, folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, metadata={"Software": None}, pil_kwargs={"optimize": True})


def _box(axes: Axes, x: float, y: float, title: str, text: str, color: str) -> None:
    corner = (x - BOX_WIDTH / 2 + 0.1, y - BOX_HEIGHT / 2 + 0.1)
    style = "round,pad=0.1,rounding_size=0.15"
    size = (BOX_WIDTH - 0.2, BOX_HEIGHT - 0.2)
    axes.add_patch(FancyBboxPatch(corner, *size, boxstyle=style, facecolor="white", edgecolor=color, linewidth=1.8))
    axes.text(x, y + 0.2, title, ha="center", va="center", fontsize=11.5, color=color, weight="bold")
    axes.text(x, y - 0.22, text, ha="center", va="center", fontsize=9, color=INK)


def _arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], color: str) -> None:
    style = {"arrowstyle": "-|>", "mutation_scale": 14, "shrinkA": 0, "shrinkB": 1, "linewidth": 1.6}
    axes.add_patch(FancyArrowPatch(start, end, color=color, **style))


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8.5)
    axes.xaxis.label.set_size(9)
    axes.yaxis.label.set_size(9)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--teacher-dir", type=Path, default=TEACHER_DIR, help="default: that of multi30k.noise30")
    parser.add_argument("--output", type=Path, default=PICTURE, help="default: docs/pictures/loop.png")
    options = parser.parse_args()
    draw(options.teacher_dir, options.output)


if __name__ == "__main__":
    main()
