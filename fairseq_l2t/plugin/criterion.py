"""The criterion ``dynamic_teacher_loss``: the teacher's coefficients, applied to a fairseq student.

Annotations are evaluated here, not kept as text: fairseq reads the types of the dataclass to build its parser.
"""

import math
from dataclasses import dataclass, field, replace
from typing import Any, Optional

from fairseq import metrics, utils
from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.dataclass import FairseqDataclass
from fairseq.models import BaseFairseqModel
from fairseq.tasks import TASK_REGISTRY, FairseqTask
from omegaconf import II
from torch import Tensor

from fairseq_l2t.loss.dynamic_loss import LossShape
from fairseq_l2t.plugin.frozen_teacher import FrozenTeacher, required_teacher
from fairseq_l2t.plugin.token_loss import token_loss
from fairseq_l2t.teaching.options.declaration import OptionError

__all__ = ["DynamicTeacherLoss", "DynamicTeacherLossConfig"]

_PHI_STATISTICS = ("phi_min", "phi_mean", "phi_max", "phi_off_diagonal")


@dataclass
class DynamicTeacherLossConfig(FairseqDataclass):  # type: ignore[misc]  # fairseq has no types
    """Options of the criterion."""

    loss_scale: Optional[float] = field(  # noqa: UP045  fairseq reads no other spelling
        default=None,
        metadata={"help": "factor of the sigmoid loss (default: the one the teacher was trained with)"},
    )
    cross_entropy_mix: Optional[float] = field(  # noqa: UP045  fairseq reads no other spelling
        default=None,
        metadata={"help": "share in [0, 1] of plain cross-entropy in the loss (default: the teacher's)"},
    )
    loss_level: Optional[str] = field(  # noqa: UP045  fairseq reads no other spelling
        default=None,
        metadata={"help": "granularity of the sigmoid: token or sentence (default: the teacher's)"},
    )
    sentence_avg: bool = II("optimization.sentence_avg")


@register_criterion("dynamic_teacher_loss", dataclass=DynamicTeacherLossConfig)
class DynamicTeacherLoss(FairseqCriterion):  # type: ignore[misc]  # fairseq has no types
    """``-sum_r sigmoid(Phi_t[y_r] log p(y_r))`` in training, plain nll in validation, so that runs can be compared.

    Source: Wu et al., NeurIPS 2018, section 3.2. The coefficients come from the task (``l2t_dlf``), which holds the
    teacher and the student's state. The criterion has no parameters, so that the student's optimizer cannot train the
    teacher.

    Args:
        task: the task ``l2t_dlf``.
        loss_scale, cross_entropy_mix, loss_level: see `loss.dynamic_loss.LossShape`; None: the teacher's.
        sentence_avg: whether the sample size is the number of sentences instead of target tokens.

    Raises:
        OptionError: another task, or ``loss_scale``, ``cross_entropy_mix`` or ``loss_level`` out of range.
    """

    def __init__(
        self,
        task: FairseqTask,
        loss_scale: float | None,
        cross_entropy_mix: float | None,
        loss_level: str | None,
        sentence_avg: bool,
    ) -> None:
        super().__init__(task)
        if not hasattr(task, "frozen_teacher"):
            raise OptionError(
                f"--task: {_name_of(task)}; --criterion dynamic_teacher_loss needs --task l2t_dlf, or a task "
                "of your own that is derived from it (docs/train-a-student.md)"
            )
        self.sentence_avg = sentence_avg
        self._options = {"scale": loss_scale, "cross_entropy_mix": cross_entropy_mix, "level": loss_level}
        if task.frozen_teacher is not None:
            self._shape()  # refuses a bad option before any data is read

    def forward(
        self, model: BaseFairseqModel, sample: dict[str, Any], reduce: bool = True
    ) -> tuple[Tensor, int, dict[str, Any]]:
        """Return the summed loss, the sample size and the logging outputs, as every fairseq criterion does.

        Args:
            model: a fairseq encoder-decoder.
            sample: a batch; ``target`` (batch, length).
            reduce: True.

        Raises:
            ValueError: ``reduce`` is False.
            OptionError: the model is in training and no teacher was given.
        """
        if not reduce:
            raise ValueError("dynamic_teacher_loss: reduce=False; only the summed loss is supported")
        if self.training:
            result = token_loss(model, sample, self.padding_idx, self._teacher().coefficients, self._shape())
        else:
            result = token_loss(model, sample, self.padding_idx, None, LossShape())
        sample_size = sample["target"].size(0) if self.sentence_avg else sample["ntokens"]
        logging_output = {
            "loss": result.total.data,
            "nll_loss": result.nll.data,
            "n_correct": result.correct,
            "total": sample["ntokens"],
            "ntokens": sample["ntokens"],
            "nsentences": sample["target"].size(0),
            "sample_size": sample_size,
        }
        if self.training:
            logging_output["training_batches"] = 1
            logging_output.update(self._teacher().phi_statistics)
        return result.total, sample_size, logging_output

    def _teacher(self) -> FrozenTeacher:
        return required_teacher(self.task.frozen_teacher)

    def _shape(self) -> LossShape:
        given: dict[str, Any] = {name: value for name, value in self._options.items() if value is not None}
        try:
            return replace(self._teacher().loss_shape, **given)
        except ValueError as error:
            raise OptionError(str(error)) from error

    @staticmethod
    def reduce_metrics(logging_outputs: list[dict[str, Any]]) -> None:
        """Aggregate logging outputs: loss and nll_loss in bits per token, ppl, accuracy in %, Phi statistics."""
        total = {key: sum(log.get(key, 0) for log in logging_outputs) for key in _summed_keys(logging_outputs)}
        ntokens, sample_size = total["ntokens"], total["sample_size"]
        metrics.log_scalar("loss", total["loss"] / sample_size / math.log(2), sample_size, round=3)
        metrics.log_scalar("nll_loss", total["nll_loss"] / ntokens / math.log(2), ntokens, round=3)
        metrics.log_derived("ppl", lambda meters: utils.get_perplexity(meters["nll_loss"].avg))
        metrics.log_scalar("accuracy", 100.0 * utils.item(total["n_correct"]) / ntokens, ntokens, round=2)
        batches = total.get("training_batches", 0)
        for name in (name for name in _PHI_STATISTICS if batches and name in total):
            metrics.log_scalar(name, total[name] / batches, batches, round=4)

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        """Return True: every logging output is a sum, which workers may add up before `reduce_metrics`."""
        return True


def _summed_keys(logging_outputs: list[dict[str, Any]]) -> set[str]:
    return {key for log in logging_outputs for key in log}


def _name_of(task: FairseqTask) -> str:
    """Return the name of a task as ``--task`` takes it."""
    return next((name for name, kind in TASK_REGISTRY.items() if kind is type(task)), type(task).__name__)
