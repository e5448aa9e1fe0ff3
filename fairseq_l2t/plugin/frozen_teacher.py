"""The frozen teacher of one ``fairseq-train`` run, with the student's state and the coefficients of each update."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fairseq_l2t.loss.student_state import BLEU_FEATURE, StudentState, require_same_features
from fairseq_l2t.plugin.corpus_bleu import corpus_bleu_of_counts
from fairseq_l2t.storage import TeacherFile
from fairseq_l2t.storage.schema import Count, FileValues, Sha256, Share, one_line, validated
from fairseq_l2t.teaching.options.comparison import ResumeError
from fairseq_l2t.teaching.options.declaration import OptionError

__all__ = ["FrozenTeacher", "required_teacher"]

logger = logging.getLogger(__name__)

_SAVED_VERSION = 1
"""Version of the ``teaching`` entry of a checkpoint's task state."""

_DIGITS = 12
"""Digits of a fingerprint in a message."""


class _SavedTeaching(FileValues):
    """The ``teaching`` entry; those of earlier versions name no teacher and no length of life."""

    version: int
    measures: dict[str, Share]
    teacher_sha256: Sha256 | None = None
    total_updates: Count | None = None
    cross_entropy_updates: Count | None = None


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
        allow_other_teacher: whether a checkpoint that another teacher taught is continued (``--allow-other-teacher``).

    Raises:
        OptionError: a feature of the teacher is dev BLEU and validation does not compute it, or its features are not
            those of a translation student.
    """

    def __init__(
        self,
        file: TeacherFile,
        *,
        total_updates: int | None,
        cross_entropy_updates: int,
        bleu_is_measured: bool,
        allow_other_teacher: bool = False,
    ) -> None:
        self._teacher, self._file, self._allow_other_teacher = file.teacher, file, allow_other_teacher
        self._total_updates = total_updates
        with_bleu = BLEU_FEATURE in file.teacher.features
        if with_bleu and not bleu_is_measured:
            raise OptionError(f"{file.path}: {BLEU_FEATURE} is a feature of this teacher; give --eval-bleu")
        self.loss_shape = file.settings.loss_shape
        self._state = StudentState(file.teacher.entries, total_updates or 1, with_bleu=with_bleu)
        try:
            require_same_features(file.teacher.features, self._state.features, f"teacher {file.path}")
        except ValueError as error:
            raise OptionError(str(error)) from error
        self.has_length = total_updates is not None
        self._cross_entropy_updates = cross_entropy_updates
        self._prepared: int | None = None
        self._dev_sums: dict[str, float] = {}
        self.coefficients: Tensor | None = None
        self.phi_statistics: dict[str, float] = {}
        self._no_statistics = dict.fromkeys(self._teacher.statistics(self._teacher.values[:, 0]), 0.0)

    def begin_life(self, total_updates: int, cross_entropy_updates: int) -> None:
        """Set the length of the student's life, and its cross-entropy updates, where the data determine them."""
        self._total_updates = self._state.total_updates = total_updates
        self._cross_entropy_updates = cross_entropy_updates
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
        """Return all values that determine the next Phi, and the fingerprint of the teacher, in plain types."""
        self._fold_dev()
        return {
            "version": _SAVED_VERSION,
            "measures": self._state.state_dict(),
            "teacher_sha256": self._file.sha256,
            "total_updates": self._total_updates,
            "cross_entropy_updates": self._cross_entropy_updates,
        }

    def load_state_dict(self, saved: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned. A life of another length is logged; it changes the student's progress.

        Raises:
            ResumeError: another teacher, unless ``allow_other_teacher``.
            OptionError: another version, or measures of other names or out of range.
        """
        version = saved.get("version") if isinstance(saved, Mapping) else None
        if version != _SAVED_VERSION:
            raise OptionError(f"teaching state: version {one_line(version)}; this release reads {_SAVED_VERSION}")
        try:
            values = validated(_SavedTeaching, dict(saved), "teaching state")
        except ValueError as error:
            raise OptionError(str(error)) from error
        self._compare_teacher(values.teacher_sha256)
        for name, then, now in (
            ("total_updates", values.total_updates, self._total_updates),
            ("cross_entropy_updates", values.cross_entropy_updates, self._cross_entropy_updates),
        ):
            if now is not None and then not in (None, now):  # None: the data determine it later, in `begin_life`
                logger.warning(
                    "--%s: %d then, %d now; the coefficients of this student change in the middle of its life",
                    name.replace("_", "-"),
                    then,
                    now,
                )
        try:
            self._state.load_state_dict(values.measures)
        except ValueError as error:
            raise OptionError(str(error)) from error
        self._prepared = None

    def _compare_teacher(self, then: str | None) -> None:
        if then is None:
            logger.warning("the checkpoint of an earlier version does not identify its teacher; it was not compared")
        elif then != self._file.sha256:
            told = (
                f"{self._file.path} is another teacher than the one of the checkpoint "
                f"(SHA-256 {self._file.sha256[:_DIGITS]} now, {then[:_DIGITS]} then)"
            )
            if not self._allow_other_teacher:
                raise ResumeError(
                    f"--teacher-path: {told}; give the teacher of the checkpoint, --allow-other-teacher to continue "
                    "under this one, or --reset-optimizer to begin a new life with the weights of the checkpoint"
                )
            logger.warning("--allow-other-teacher: %s", told)


def required_teacher(teacher: FrozenTeacher | None) -> FrozenTeacher:
    """Return the teacher of a task that trains.

    Raises:
        OptionError: the task has no teacher, because it was built for decoding.
    """
    if teacher is None:
        raise OptionError("--teacher-path: not given; --task l2t_dlf needs a teacher file for training")
    return teacher


def _number(value: Any) -> float:
    """Return a logged number; NaN counts as infinite loss."""
    number = float(value)
    return number if math.isfinite(number) else math.inf
