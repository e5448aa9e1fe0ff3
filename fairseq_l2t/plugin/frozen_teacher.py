"""The frozen teacher of one ``fairseq-train`` run, with the student's state and the coefficients of each update."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from fairseq_l2t.loss.student_state import BLEU_FEATURE, StudentState, require_same_features
from fairseq_l2t.plugin.corpus_bleu import corpus_bleu_of_counts
from fairseq_l2t.storage import TeacherFile

__all__ = ["FrozenTeacher", "required_teacher"]

_SAVED_VERSION = 1
"""Version of the ``teaching`` entry of a checkpoint's task state."""


class FrozenTeacher:
    """A teacher that does not learn: it computes s_t from fairseq's logging outputs, and Phi_t for each update.

    fairseq sums logging outputs over micro-batches and workers, so that every worker has the same state and computes
    the same coefficients.

    ``coefficients`` (coefficient_count,) are those of the last update given to `prepare`, None under plain
    cross-entropy; ``phi_statistics`` are their `loss.teacher.Teacher.statistics`, zeros under plain cross-entropy.

    Args:
        file: the loaded teacher.
        total_updates: length of the student's life, for ``progress``; None: `begin_life` gives it later.
        cross_entropy_updates: updates of plain cross-entropy at its start.
        bleu_is_measured: whether validation computes BLEU (``--eval-bleu``).

    Raises:
        ValueError: a feature of the teacher is dev BLEU and validation does not compute it, or its features are not
            those of a translation student.
    """

    def __init__(
        self, file: TeacherFile, *, total_updates: int | None, cross_entropy_updates: int, bleu_is_measured: bool
    ) -> None:
        self._teacher = file.teacher
        with_bleu = BLEU_FEATURE in file.teacher.features
        if with_bleu and not bleu_is_measured:
            raise ValueError(f"{file.path}: {BLEU_FEATURE} is a feature of this teacher; give --eval-bleu")
        self.loss_shape = file.settings.loss_shape
        self._state = StudentState(file.teacher.entries, total_updates or 1, with_bleu=with_bleu)
        require_same_features(file.teacher.features, self._state.features, f"teacher {file.path}")
        self.has_length = total_updates is not None
        self._cross_entropy_updates = cross_entropy_updates
        self._prepared: int | None = None
        self._dev_sums: dict[str, float] = {}
        self.coefficients: Tensor | None = None
        self.phi_statistics: dict[str, float] = {}
        self._no_statistics = dict.fromkeys(self._teacher.statistics(self._teacher.values[:, 0]), 0.0)

    def begin_life(self, total_updates: int, cross_entropy_updates: int) -> None:
        """Set the length of the student's life, and its cross-entropy updates, where the data determine them."""
        self._state.total_updates, self._cross_entropy_updates = total_updates, cross_entropy_updates
        self.has_length = True

    def prepare(self, update: int, device: torch.device, dtype: torch.dtype) -> None:
        """Set ``coefficients`` and ``phi_statistics`` for an update.

        Args:
            update: number of the update, counted from 0.
            device: of the student's parameters.
            dtype: of the student's parameters. Coefficients are at least float32, as in teacher training: they multiply
                log-probabilities, which fairseq computes in float32 for a half-precision student too.
        """
        if update == self._prepared:
            return
        self._fold_dev()
        self._prepared = update
        if update < self._cross_entropy_updates:
            self.coefficients, self.phi_statistics = None, self._no_statistics
            return
        with torch.no_grad():
            # On the CPU, in the teacher's own precision: the same bits on every device and worker.
            phi = self._teacher(self._state.vector(update).to(self._teacher.values))
        self.phi_statistics = self._teacher.statistics(phi)
        self.coefficients = phi.to(device=device, dtype=torch.promote_types(dtype, torch.float32))

    def begin_validation(self) -> None:
        """Discard the dev measures collected so far; a new validation starts."""
        self._dev_sums = {}

    def observe(self, logging_outputs: list[dict[str, Any]]) -> None:
        """Add the logging outputs of one update, or of one validation batch, to the state."""
        # In float64, as the unroll adds the losses of micro-batches.
        sums = {key: sum(_number(log.get(key, 0)) for log in logging_outputs) for key in set().union(*logging_outputs)}
        if sums.get("training_batches"):
            self._state.observe_training(sums["nll_loss"] / sums["ntokens"], sums["n_correct"] / sums["ntokens"])
        elif sums.get("ntokens"):
            for key, value in sums.items():
                self._dev_sums[key] = self._dev_sums.get(key, 0.0) + value

    def _fold_dev(self) -> None:
        sums, self._dev_sums = self._dev_sums, {}
        if sums.get("ntokens"):
            tokens = sums["ntokens"]
            self._state.observe_dev(sums["nll_loss"] / tokens, sums["n_correct"] / tokens, corpus_bleu_of_counts(sums))

    def state_dict(self) -> dict[str, Any]:
        """Return all values that determine the next Phi, in plain types."""
        self._fold_dev()
        return {"version": _SAVED_VERSION, "measures": self._state.state_dict()}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            ValueError: another version, or measures of other names.
        """
        if saved.get("version") != _SAVED_VERSION:
            raise ValueError(f"teaching state: version {saved.get('version')}; this release reads {_SAVED_VERSION}")
        self._state.load_state_dict(saved["measures"])
        self._prepared = None


def required_teacher(teacher: FrozenTeacher | None) -> FrozenTeacher:
    """Return the teacher of a task that trains.

    Raises:
        ValueError: the task has no teacher, because it was built for decoding.
    """
    if teacher is None:
        raise ValueError("--teacher-path: not given; --task l2t_dlf needs a teacher file for training")
    return teacher


def _number(value: Any) -> float:
    """Return a logged number; NaN counts as infinite loss."""
    number = float(value)
    return number if math.isfinite(number) else math.inf
