"""A teacher at work on one ``fairseq-train`` run: the student's state, and the coefficients of each update."""

from __future__ import annotations

import math
from typing import Any

import sacrebleu
import torch
from torch import Tensor

from fairseq_l2t.loss.student_state import BLEU_FEATURE, StudentState, require_same_features
from fairseq_l2t.storage import TeacherFile

__all__ = ["Teaching", "corpus_bleu_of_counts"]

_BLEU_ORDER = 4
_STATE_VERSION = 1


class Teaching:
    """Keeps s_t from fairseq's logging outputs and asks the frozen teacher for Phi_t before each update.

    Logging outputs are what fairseq has summed over micro-batches and workers, so every worker sees the same
    state and computes the same coefficients.

    Args:
        file: the loaded teacher.
        total_updates: length of the student's life, which ``progress`` is relative to.
        cross_entropy_updates: updates of plain cross-entropy at its start.
        bleu_is_measured: whether validation computes BLEU (``--eval-bleu``).

    Raises:
        ValueError: the teacher looks at dev BLEU and validation does not compute it, or at other features.
    """

    def __init__(
        self, file: TeacherFile, *, total_updates: int, cross_entropy_updates: int, bleu_is_measured: bool
    ) -> None:
        self._teacher = file.teacher
        with_bleu = BLEU_FEATURE in file.teacher.features
        if with_bleu and not bleu_is_measured:
            raise ValueError(f"{file.path}: this teacher looks at {BLEU_FEATURE}; give --eval-bleu")
        self.loss_shape = file.settings.loss_shape
        self._state = StudentState(file.teacher.entries, total_updates, with_bleu=with_bleu)
        require_same_features(file.teacher.features, self._state.features, f"teacher {file.path}")
        self._cross_entropy_updates = cross_entropy_updates
        self._update: int | None = None
        self._dev_sums: dict[str, float] = {}
        self.coefficients: Tensor | None = None
        self.phi_statistics: dict[str, float] = {}
        self._no_statistics = dict.fromkeys(self._teacher.statistics(self._teacher.values[:, 0]), 0.0)

    def prepare(self, update: int, device: torch.device, dtype: torch.dtype) -> None:
        """Make ``coefficients`` (coefficient_count,) those of update number ``update``; None: plain cross-entropy.

        ``dtype`` is that of the student's parameters; coefficients are at least float32, as in teacher training: they
        multiply log-probabilities, which fairseq computes in float32 for a half-precision student too.
        """
        if update == self._update:
            return
        self._fold_dev()
        self._update = update
        if update < self._cross_entropy_updates:
            self.coefficients, self.phi_statistics = None, self._no_statistics
            return
        with torch.no_grad():
            # On the CPU, in the teacher's own precision: the same bits on every device and worker.
            phi = self._teacher(self._state.vector(update).to(self._teacher.values))
        self.phi_statistics = self._teacher.statistics(phi)
        self.coefficients = phi.to(device=device, dtype=torch.promote_types(dtype, torch.float32))

    def begin_validation(self) -> None:
        """Start to collect dev measures anew."""
        self._dev_sums = {}

    def observe(self, logging_outputs: list[dict[str, Any]]) -> None:
        """Take the logging outputs of one update, or of one validation batch."""
        # Each first made a float64: the unroll, too, adds the losses of micro-batches in float64.
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
        """Return all that decides the next Phi, in plain types."""
        self._fold_dev()
        return {"version": _STATE_VERSION, "measures": self._state.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take the state of a checkpoint.

        Raises:
            ValueError: another version, or measures of other names.
        """
        if state.get("version") != _STATE_VERSION:
            raise ValueError(f"teaching state: version {state.get('version')}; this release reads {_STATE_VERSION}")
        self._state.load_state_dict(state["measures"])
        self._update = None


def corpus_bleu_of_counts(sums: dict[str, float]) -> float | None:
    """Return BLEU in [0, 100] from the summed n-gram counts fairseq's translation task logs, or None without them."""
    if "_bleu_sys_len" not in sums:
        return None
    return sacrebleu.BLEU.compute_bleu(
        correct=[int(sums[f"_bleu_counts_{order}"]) for order in range(_BLEU_ORDER)],
        total=[int(sums[f"_bleu_totals_{order}"]) for order in range(_BLEU_ORDER)],
        sys_len=int(sums["_bleu_sys_len"]),
        ref_len=int(sums["_bleu_ref_len"]),
        smooth_method="exp",
    ).score


def _number(value: Any) -> float:
    number = float(value)
    return number if math.isfinite(number) else math.inf
