"""The states of a student at stages of its life, for a teacher that is looked at without a student.

A teacher file holds weights alone, so the state has to come from somewhere; in this order: the training log,
the states the training recorded in the teacher file, or assumed values.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fairseq_l2t.inspection.errors import InspectionError
from fairseq_l2t.inspection.training_log import TrainingLog
from fairseq_l2t.storage import TeacherFile

__all__ = ["ASSUMED_END", "StateSource", "choose_states"]

PROGRESS = "progress"

ASSUMED_END = {"accuracy": 0.6, "loss": 0.3, "bleu": 0.3}
"""What a student is assumed to reach at the end of its life where nothing was recorded: token accuracy, loss
relative to the logarithm of the vocabulary, BLEU / 100. Round numbers of the order of small IWSLT models, not
measured ones: the report says that they are assumed."""


@dataclass(frozen=True)
class StateSource:
    """Known states, and where they are from.

    Args:
        features: names, in the teacher's order.
        progress: (points,), increasing, in [0, 1].
        values: (points, features), in [0, 1].
        description: one clause for the reader of a report.
    """

    features: tuple[str, ...]
    progress: np.ndarray
    values: np.ndarray
    description: str

    def at(self, stages: Sequence[float]) -> np.ndarray:
        """Return states (stages, features), interpolated by progress and held beyond both ends."""
        columns = [np.interp(stages, self.progress, column) for column in self.values.T]
        states = np.stack(columns, axis=1)
        if PROGRESS in self.features:
            states[:, self.features.index(PROGRESS)] = stages
        return states


def choose_states(teacher_file: TeacherFile, log: TrainingLog | None) -> StateSource:
    """Return the states from the log, else those recorded in the teacher file, else assumed ones.

    Raises:
        InspectionError: a recorded state that lacks a feature of the teacher or leaves [0, 1].
    """
    features = teacher_file.teacher.features
    points = [] if log is None else [point for line in log.lines for point in _points_of(line)]
    if points:
        lives = f"{log.lives} student {'life' if log.lives == 1 else 'lives'}"
        place = f"--log {log.path}"
        description = f"read from {log.path} ({len(points)} states of {lives}; mean at equal progress)"
        return _recorded(features, points, place, description)
    recorded = teacher_file.settings.extra.get("states")
    if recorded:
        if not isinstance(recorded, list):
            raise InspectionError(f"{teacher_file.path}: settings: states: expected a list")
        description = f"recorded in the teacher file at training ({len(recorded)} points)"
        return _recorded(features, recorded, str(teacher_file.path), description)
    return _assumed(features, teacher_file.teacher.entries)


def _points_of(line: Mapping[str, Any]) -> list[Any]:
    """Return the states a line tells of; logs from before there were several hold that of the window's end."""
    states = line.get("states")
    if isinstance(states, list):
        return states
    return [line] if "state" in line else []


def _recorded(features: Sequence[str], points: Iterable[Any], place: str, description: str) -> StateSource:
    by_progress: dict[float, list[list[float]]] = {}
    for point in points:
        progress, state = _state_of(point, features, place)
        by_progress.setdefault(round(progress, 9), []).append(state)
    order = sorted(by_progress)
    values = np.array([np.mean(by_progress[progress], axis=0) for progress in order])
    return StateSource(tuple(features), np.array(order), values, description)


def _state_of(point: Any, features: Sequence[str], place: str) -> tuple[float, list[float]]:
    """Read ``{"progress": p, "state": {name: value}}``, or the state alone with its own progress."""
    if not isinstance(point, Mapping):
        raise InspectionError(f"{place}: state {point!r}; expected an object")
    state = point.get("state", point)
    if not isinstance(state, Mapping):
        raise InspectionError(f"{place}: state {state!r}; expected an object of names and numbers")
    state = {PROGRESS: point.get(PROGRESS), **state}
    values = []
    for name in (PROGRESS, *features):
        value = state.get(name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
            raise InspectionError(f"{place}: state feature {name!r}: {value!r}; expected a number in [0, 1]")
        values.append(float(value))
    return values[0], values[1:]


def _assumed(features: Sequence[str], entries: int) -> StateSource:
    chance = 1.0 / entries
    start, end = [], []
    for name in features:
        measure = name.rpartition("_")[2]
        start.append(0.0 if name == PROGRESS else 1.0 if measure == "loss" else chance)
        end.append(1.0 if name == PROGRESS else ASSUMED_END.get(measure, 1.0))
    assumed = ", ".join(f"{name} {value:g}" for name, value in ASSUMED_END.items())
    description = (
        "ASSUMED, as the file has no recorded states and no --log is given: every measure goes linearly from chance "
        f"level to {assumed}"
    )
    return StateSource(tuple(features), np.array([0.0, 1.0]), np.array([start, end]), description)
