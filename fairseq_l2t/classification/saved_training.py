"""Checks of the saved state of a student's training, and of the lines of its log, before anything is built."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field
from torch import Tensor

from fairseq_l2t.storage.json_log import LogRecord
from fairseq_l2t.storage.schema import Count, FileValues, Percent, Sha256, Share, validated
from fairseq_l2t.teaching.saved_state import StudentValues
from fairseq_l2t.teaching.saved_tensors import student_tensor_problems

__all__ = ["StudentLogRecord", "check_saved_training"]

_BEST = "best_omega"


class StudentLogRecord(LogRecord):
    """A line of ``train_log.jsonl`` (`classification.training.Validation`)."""

    update: Count
    dev_error: Percent
    state: dict[str, Share]


class _Validation(FileValues):
    update: Annotated[int, Field(ge=1)]
    dev_error: Share
    state: dict[str, Share]


class _TrainingValues(StudentValues):
    """The values of `classification.training.StudentTraining.state_dict`, and those that `classification.runs` adds."""

    update: Annotated[int, Field(ge=1, le=2**53)]
    best: _Validation
    without_best: Count
    options: dict[str, Any]
    fingerprints: dict[str, Sha256] | None = None


def check_saved_training(tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
    """Check a saved training.

    Raises:
        ValueError: one line with the first problem.
    """
    run = validated(_TrainingValues, values)
    if run.best.update > run.update:
        raise ValueError(f"best.update: {run.best.update}; expected at most the {run.update} updates made")
    if run.best.state.keys() != run.measures.keys():
        raise ValueError(f"best.state: {', '.join(run.best.state)}; expected {', '.join(run.measures)}")
    if run.seed != run.options.get("seed"):
        raise ValueError(f"seed: {run.seed}; the run was started with {run.options.get('seed')}")
    total = run.options.get("total_updates")
    if isinstance(total, int) and run.update > total:
        raise ValueError(f"update: {run.update}; expected at most the {total} updates of a life")
    own = {name: tensor for name, tensor in tensors.items() if name != _BEST}
    for problem in student_tensor_problems(own):
        raise ValueError(problem)
    for problem in student_tensor_problems({"omega": tensors[_BEST]} if _BEST in tensors else {}, "best_"):
        raise ValueError(problem)
    if tensors[_BEST].shape != tensors["omega"].shape:
        raise ValueError(
            f"tensor best_omega: {len(tensors[_BEST])} parameters; expected the {len(tensors['omega'])} of omega"
        )
