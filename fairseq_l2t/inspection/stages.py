"""The states of a student at stages of its life, for a teacher that is inspected without a student.

They come from the training log, else from the teacher file, in which training records them, else they are assumed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fairseq_l2t.inspection.errors import InspectionError
from fairseq_l2t.inspection.training_log import TrainingLog
from fairseq_l2t.inspection.weights import Floats
from fairseq_l2t.storage import TeacherFile

__all__ = ["ASSUMED_END", "StateSource", "choose_states"]

PROGRESS = "progress"

ASSUMED_END = {"accuracy": 0.6, "loss": 0.3, "bleu": 0.3}
"""Measures of a student at the end of its life where none were recorded: token accuracy, loss relative to the logarithm
of the vocabulary size, BLEU / 100. They are assumed, not measured (round numbers of the order of small IWSLT models),
and the report says so."""


@dataclass(frozen=True)
class StateSource:
    """States of a student, and their source.

    Args:
        features: names, in the teacher's order.
        progress: (points,), increasing, in [0, 1].
        values: (points, features), in [0, 1].
        description: the source in words, for a report.
    """

    features: tuple[str, ...]
    progress: Floats
    values: Floats
    description: str

    def at(self, stages: Sequence[float] | Floats) -> Floats:
        """Return states (stages, features), interpolated by progress and constant beyond both ends."""
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
    states = [] if log is None else [state for line in log.lines for state in line.get("states") or []]
    if log is not None and states:
        lives = f"{log.lives} student {'life' if log.lives == 1 else 'lives'}"
        description = f"read from {log.path} ({len(states)} states of {lives}; mean at equal progress)"
        return _recorded(features, states, f"--log {log.path}", description)
    recorded = teacher_file.settings.extra.get("states")
    if recorded:
        if not isinstance(recorded, list):
            raise InspectionError(f"{teacher_file.path}: settings: states: {recorded!r}; expected a list")
        description = f"recorded in the teacher file at training ({len(recorded)} points)"
        return _recorded(features, recorded, str(teacher_file.path), description)
    return _assumed(features, teacher_file.teacher.entries)


def _recorded(features: Sequence[str], states: Iterable[Any], place: str, description: str) -> StateSource:
    by_progress: dict[float, list[list[float]]] = {}
    for state in states:
        progress, *values = _numbers(state, (PROGRESS, *features), place)
        by_progress.setdefault(round(progress, 9), []).append(values)
    order = sorted(by_progress)
    means = np.array([np.mean(by_progress[progress], axis=0) for progress in order])
    return StateSource(tuple(features), np.array(order), means, description)


def _numbers(state: Any, features: Sequence[str], place: str) -> list[float]:
    """Return the values of ``features`` in ``state``, an object of names and numbers."""
    if not isinstance(state, Mapping):
        raise InspectionError(f"{place}: state {state!r}; expected an object of names and numbers")
    values = []
    for name in features:
        value = state.get(name)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
            raise InspectionError(f"{place}: state feature {name!r}: {value!r}; expected a number in [0, 1]")
        values.append(float(value))
    return values


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
