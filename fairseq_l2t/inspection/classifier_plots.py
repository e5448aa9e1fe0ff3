"""PNG plots of a classifier's teacher: its training, and rows of its full Phi over a student's life."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axis import Axis
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure

from fairseq_l2t.inspection.errors import InspectionError
from fairseq_l2t.inspection.plots import save_figure, shown_word
from fairseq_l2t.inspection.training_log import TrainingLog, read_training_log
from fairseq_l2t.inspection.training_plot import plot_training
from fairseq_l2t.inspection.weights import Floats
from fairseq_l2t.loss.teacher import Teacher
from fairseq_l2t.storage import load_teacher

__all__ = ["plot_rows", "plot_run", "stages_of"]

_STAGES = 3
_MOST_NAMES = 25
"""Most names of classes at an axis."""


def plot_run(
    folder: str | os.PathLike[str], output: str | os.PathLike[str], classes: Sequence[str] | None = None
) -> list[Path]:
    """Draw the figures of a ``train-teacher`` run into ``output``; return their paths.

    Args:
        folder: folder of the run.
        output: folder of the figures, created if absent.
        classes: names of the classes whose rows of Phi are shown; None: all.

    Raises:
        InspectionError, TeacherFileError: a file of the run cannot be read, or the run has no such class.
        OSError: a figure could not be written.
    """
    folder, output = Path(folder), Path(output)
    file = load_teacher(folder / "teacher.safetensors", forms=("full",))
    names = file.settings.extra.get("classes")
    if not isinstance(names, list) or len(names) != file.teacher.entries:
        raise InspectionError(f"{file.path}: no class names; expected a file of l2t-classify train-teacher")
    wanted = list(names if classes is None else classes)
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
        judged = (file.settings.extra.get("plan") or {}).get("holdout_lives", 1) > 0
        paths.append(output / "training.png")
        plot_training(
            paths[1], log, entry="coefficient", pair="image", beside="Phi, mean off the diagonal", judged_after=judged
        )
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
    """Draw Phi_t(i, j) for chosen classes i against all j, a heat map per stage (Wu et al. 2018, Figure 4).

    The diagonal Phi(i, i) is ten and more times the others: it has a heat map and a scale of its own, with a column per
    stage, and is grey in the others.

    Args:
        path: the PNG file, written atomically.
        teacher: a teacher with a full Phi.
        names: names of all classes.
        rows: indices i of the classes shown.
        states: one state per stage, by feature name, in order of progress.
    """
    phi = np.stack([_phi(teacher, state)[list(rows)] for state in states])
    own = phi[:, np.arange(len(rows)), list(rows)]
    phi[:, np.arange(len(rows)), list(rows)] = np.nan
    stages, shown = [f"{state['progress']:.0%}" for state in states], [shown_word(name) for name in names]
    figure = Figure(figsize=(3.4 * len(states) + 3.2, 1.7 + max(1.6, min(5.0, 0.32 * len(rows)))), layout="constrained")
    ratios = [*[1.0] * len(states), 0.4]
    *panels, last = figure.subplots(1, len(states) + 1, width_ratios=ratios, squeeze=False)[0]
    limit = max(float(np.nanmax(np.abs(phi), initial=0)), 1e-9)  # a scale needs an extent
    for axes, values, stage in zip(panels, phi, stages, strict=True):
        axes.set_facecolor("0.8")
        image = axes.imshow(values, cmap="RdBu_r", norm=TwoSlopeNorm(0.0, -limit, limit), aspect="auto")
        axes.set_title(f"progress {stage}", fontsize=10)
        axes.set_xlabel("class j")
        _name_ticks(axes.xaxis, shown, is_upright=max(map(len, shown)) > 2)
        _name_ticks(axes.yaxis, [shown[row] for row in rows])
    panels[0].set_ylabel("label i")
    figure.colorbar(image, ax=panels, location="bottom", label="Phi(i, j), j other than i", aspect=50, shrink=0.6)
    diagonal = last.imshow(own.T, cmap="viridis", aspect="auto")
    last.set_title("diagonal Phi(i, i)", fontsize=10)
    last.set_xlabel("progress")
    last.set_xticks(range(len(stages)), stages, fontsize=7)
    _name_ticks(last.yaxis, [shown[row] for row in rows])
    figure.colorbar(diagonal, ax=last, location="bottom", aspect=12)
    figure.suptitle("Coefficients of the log-probabilities of classes, by label, over a student's life", fontsize=11)
    save_figure(figure, path)


def _phi(teacher: Teacher, state: dict[str, float]) -> Floats:
    """Return the matrix Phi (classes, classes) at a state."""
    vector = torch.tensor([state[name] for name in teacher.features]).to(teacher.queries)
    with torch.no_grad():
        phi: Floats = teacher(vector).view(teacher.entries, teacher.entries).double().numpy()
    return phi


def _name_ticks(axis: Axis, names: Sequence[str], *, is_upright: bool = False) -> None:
    """Write the names of classes, of many only some."""
    step = -(-len(names) // _MOST_NAMES)
    axis.set_ticks(range(0, len(names), step), list(names[::step]), fontsize=7, rotation=90 if is_upright else 0)
