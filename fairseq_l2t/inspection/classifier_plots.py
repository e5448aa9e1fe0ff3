"""PNG plots of a classifier's teacher: its training, and rows of its full Phi over a student's life."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from fairseq_l2t.inspection.errors import InspectionError
from fairseq_l2t.inspection.plots import finish_axes, plot_training, save_figure, shown_word
from fairseq_l2t.inspection.training_log import TrainingLog, read_training_log
from fairseq_l2t.loss.teacher import Teacher
from fairseq_l2t.storage import load_teacher

__all__ = ["plot_rows", "plot_run", "stages_of"]

_MOST_CLASSES = 4
_STAGES = 3
_COLORS = ("#56B4E9", "#E69F00", "#0072B2")


def plot_run(
    folder: str | os.PathLike[str], output: str | os.PathLike[str], classes: Sequence[str] | None = None
) -> list[Path]:
    """Draw the figures of a ``train-teacher`` run into ``output``; return their paths.

    Args:
        folder: folder of the run.
        output: folder of the figures, created if absent.
        classes: names of the classes whose rows of Phi are shown; None: the first four.

    Raises:
        InspectionError, TeacherFileError: a file of the run cannot be read, or the run has no such class.
        OSError: a figure could not be written.
    """
    folder, output = Path(folder), Path(output)
    file = load_teacher(folder / "teacher.safetensors", forms=("full",))
    names = file.settings.extra.get("classes")
    if not isinstance(names, list) or len(names) != file.teacher.entries:
        raise InspectionError(f"{file.path}: no class names; expected a file of l2t-classify train-teacher")
    wanted = list(names[:_MOST_CLASSES] if classes is None else classes)
    unknown = [name for name in wanted if name not in names]
    if unknown:
        raise InspectionError(f"--classes: {', '.join(unknown)}; expected names among {', '.join(names)}")
    path = folder / "teacher_log.jsonl"
    log = read_training_log(path) if path.exists() else None  # an untrained teacher has none
    # The untrained teacher, if no update improves on it, is saved before the first life is recorded.
    known = file.settings.extra.get("states") or _states_of_last_life(log)
    states = stages_of(file.path, known, file.teacher.features)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InspectionError(
            f"--output-dir: {output}: {error.strerror}; expected a folder, or a path where one can be created"
        ) from None
    paths = [output / "phi.png"]
    plot_rows(paths[0], file.teacher, names, [names.index(name) for name in wanted], states)
    if log is not None:
        paths.append(output / "training.png")
        plot_training(paths[1], log, entry="coefficient", pair="image")
    return paths


def _states_of_last_life(log: TrainingLog | None) -> list[Any]:
    lines = () if log is None else log.lines
    last = [line for line in lines if line.get("student_life") == lines[-1].get("student_life")]
    return [state for line in last for state in line.get("states") or []]


def stages_of(path: Path, states: object, features: Sequence[str]) -> list[dict[str, float]]:
    """Return up to three of a student's states: the first, the middle and the last.

    Raises:
        InspectionError: there are no states, or a state lacks a feature.
    """
    if not isinstance(states, list) or not states:
        raise InspectionError(f"{path}: no states of a student; expected a trained teacher (--teacher-updates above 0)")
    for state in states:
        if not isinstance(state, dict) or any(not isinstance(state.get(name), (int, float)) for name in features):
            raise InspectionError(f"{path}: a state lacks one of the features {', '.join(features)}")
    places = np.unique(np.linspace(0, len(states) - 1, _STAGES).round().astype(int))
    return [states[place] for place in places]


def plot_rows(
    path: str | os.PathLike[str],
    teacher: Teacher,
    names: Sequence[str],
    rows: Sequence[int],
    states: Sequence[dict[str, float]],
) -> None:
    """Draw Phi_t(i, j) for chosen classes i against all j, one colour per stage (Wu et al. 2018, Figure 4).

    The diagonal entry is more than ten times the others, so it is written above each panel instead of drawn.

    Args:
        path: the PNG file, written atomically.
        teacher: a teacher with a full Phi.
        names: names of all classes.
        rows: indices i of the classes shown.
        states: one state per stage, by feature name, in order of progress.
    """
    columns = min(2, len(rows))
    figure = Figure(figsize=(5.2 * columns + 0.5, 2.6 * -(-len(rows) // columns) + 0.6), layout="constrained")
    panels = list(figure.subplots(-(-len(rows) // columns), columns, squeeze=False).flat)
    places, width = np.arange(len(names)), 0.8 / len(states)
    diagonals: dict[int, list[str]] = {row: [] for row in rows}
    for stage, (state, color) in enumerate(zip(states, _COLORS, strict=False)):
        vector = torch.tensor([state[name] for name in teacher.features]).to(teacher.queries)
        with torch.no_grad():
            phi = teacher(vector).view(len(names), len(names)).double().numpy()
        for row, axes in zip(rows, panels, strict=False):
            diagonals[row].append(f"{phi[row, row]:.3g}")
            phi[row, row] = np.nan
            label = f"progress {state['progress']:.0%}" if row == rows[0] else None
            axes.bar(places + (stage - (len(states) - 1) / 2) * width, phi[row], width, color=color, label=label)
    for number, axes in enumerate(panels):
        if number >= len(rows):
            axes.set_visible(False)
            continue
        axes.axhline(0, color="black", linewidth=0.8)
        finish_axes(axes, "class", "Phi")
        axes.set_xlim(-0.6, len(names) - 0.4)  # also if the first or last class is the label and has no bar
        rotation = 0 if len(names) <= 10 else 90
        axes.set_xticks(places, [shown_word(name) for name in names], rotation=rotation, fontsize=7)
        own = ", ".join(diagonals[rows[number]])
        axes.set_title(f"label {shown_word(names[rows[number]])}; its own Phi: {own}", loc="left", fontsize=10)
    figure.suptitle("Coefficients of each class's log-probability, early and late in a student's life", fontsize=11)
    figure.legend(loc="outside lower center", ncols=len(states), fontsize=8, frameon=False)
    save_figure(figure, path)
