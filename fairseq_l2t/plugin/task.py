"""The task ``l2t_dlf``: fairseq's translation task, with a teacher that sets the loss of each update.

Annotations are evaluated here, not kept as text: fairseq reads the types of the dataclass to build its parser.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

import fairseq.utils
import torch
from fairseq.criterions import FairseqCriterion
from fairseq.data import Dictionary, FairseqDataset
from fairseq.data.iterators import EpochBatchIterator
from fairseq.dataclass import FairseqDataclass
from fairseq.models import BaseFairseqModel
from fairseq.optim import FairseqOptimizer
from fairseq.tasks import register_task
from fairseq.tasks.translation import TranslationConfig, TranslationTask
from omegaconf import II
from torch import Tensor

from fairseq_l2t.compat.checkpoint_config import patch_checkpoint_config
from fairseq_l2t.compat.task_state import restore_task_state
from fairseq_l2t.plugin.frozen_teacher import FrozenTeacher, required_teacher
from fairseq_l2t.plugin.stock_names import with_stock_names
from fairseq_l2t.storage import Vocabulary, load_teacher
from fairseq_l2t.teaching.options.declaration import OptionError
from fairseq_l2t.teaching.options.life_options import LifeOptions
from fairseq_l2t.teaching.options.limits import LARGEST_COUNT

__all__ = ["L2TConfig", "L2TTask", "updates_of_epochs", "vocabulary_of"]

logger = logging.getLogger(__name__)

_CHECKPOINT_KEY = "teaching"
"""Key of the student's state in the ``task_state`` of a checkpoint; existing checkpoints depend on it."""

_NOT_GIVEN = -1
"""Value of ``--cross-entropy-updates`` that means the teacher's own share of a life."""


@dataclass
class L2TConfig(TranslationConfig):  # type: ignore[misc]  # fairseq has no types
    """Options of the task, in addition to those of fairseq's translation task."""

    teacher_path: Optional[str] = field(  # noqa: UP045  fairseq reads no other spelling
        default=None,
        metadata={"help": "teacher file written by l2t-train-teacher; required for training, not for decoding"},
    )
    total_updates: int = field(
        default=0,
        metadata={
            "help": f"length of the student's life in updates, for its progress (1 to {LARGEST_COUNT}; default: "
            "the updates of --max-epoch epochs or --max-update, whichever is smaller)"
        },
    )
    cross_entropy_updates: int = field(
        default=_NOT_GIVEN,
        metadata={
            "help": "updates of plain cross-entropy before the teacher takes over "
            "(default: the same share of the life as in the training of the teacher)"
        },
    )
    allow_other_teacher: bool = field(
        default=False,
        metadata={"help": "continue a checkpoint under another teacher than the one that taught it so far"},
    )
    max_update: int = II("optimization.max_update")
    cpu: bool = II("common.cpu")
    fp16: bool = II("common.fp16")
    memory_efficient_fp16: bool = II("common.memory_efficient_fp16")
    bf16: bool = II("common.bf16")
    amp: bool = II("common.amp")
    max_epoch: int = II("optimization.max_epoch")
    update_freq: list[int] = II("optimization.update_freq")
    skip_remainder_batch: bool = II("optimization.skip_remainder_batch")


def updates_of_epochs(batches: int, epochs: int, frequencies: Sequence[int], *, skip_remainder: bool) -> int:
    """Return the updates that ``fairseq-train --max-epoch`` makes.

    Args:
        batches: number of batches of an epoch, for each worker.
        epochs: number of epochs.
        frequencies: batches of an update in each epoch (``--update-freq``); the last one counts for all later epochs.
        skip_remainder: whether the last batch and the last, smaller update of an epoch are left out.
    """
    total = 0
    for epoch in range(epochs):
        frequency = frequencies[min(epoch, len(frequencies) - 1)]
        total += (batches - 1) // frequency if skip_remainder else -(-batches // frequency)
    return total


def vocabulary_of(dictionary: Dictionary) -> Vocabulary:
    """Return size and fingerprint of a fairseq dictionary, as teacher files record them."""
    return Vocabulary.of_symbols(dictionary.symbols)


@register_task("l2t_dlf", dataclass=L2TConfig)
class L2TTask(TranslationTask):  # type: ignore[misc]  # fairseq has no types
    """Translation under a frozen teacher.

    A task derived from it and from another subclass of ``TranslationTask``, in this order, trains that other task
    under a teacher (docs/train-a-student.md).

    Decoding and validation need no teacher, so that a checkpoint can be used without its teacher file. Training reads
    the file before it builds the model or reads data. The student's state is saved in the checkpoint (``task_state``).
    """

    def __init__(self, cfg: L2TConfig, src_dict: Dictionary, tgt_dict: Dictionary) -> None:
        super().__init__(cfg, src_dict, tgt_dict)
        self.frozen_teacher: FrozenTeacher | None = None
        restore_task_state()
        patch_checkpoint_config()

    def build_model(self, cfg: FairseqDataclass, from_checkpoint: bool = False) -> BaseFairseqModel:
        """Build the student; to train it, read the teacher first.

        Raises:
            OptionError: no teacher, a teacher with features that are not measured here, no length of the student's
                life, or half precision without a GPU.
            TeacherFileError: an invalid teacher file, or one of another vocabulary.
        """
        if not from_checkpoint:
            self._refuse_half_precision_on_a_cpu()
            self.frozen_teacher = self._load_teacher()
        return super().build_model(cfg, from_checkpoint)

    def _refuse_half_precision_on_a_cpu(self) -> None:
        """Refuse what fairseq cannot do without a GPU (it crashes), or does not do (``--amp``)."""
        if torch.cuda.is_available() and not self.cfg.cpu:
            return
        chosen = {"--fp16": self.cfg.fp16 and not self.cfg.memory_efficient_fp16, "--amp": self.cfg.amp}
        # Without a GPU fairseq takes --bf16 for a request for a TPU.
        chosen["--bf16"] = self.cfg.bf16 and fairseq.utils.xm is None
        for option in (name for name, is_chosen in chosen.items() if is_chosen):
            raise OptionError(
                f"{option}: fairseq-train needs a GPU for it, and uses none here; leave it out to train in float32"
            )

    def _load_teacher(self) -> FrozenTeacher:
        if not self.cfg.teacher_path:
            return required_teacher(None)
        total = self._given_length()
        file = load_teacher(Path(self.cfg.teacher_path), vocabulary=vocabulary_of(self.tgt_dict))
        settings = file.settings
        self._cross_entropy_share = settings.cross_entropy_updates / settings.total_updates
        logger.info("teacher %s: %d keys, features %s", file.path, file.teacher.keys, ", ".join(file.teacher.features))
        return FrozenTeacher(
            file,
            total_updates=total,
            cross_entropy_updates=0 if total is None else self._cross_entropy_updates(total),
            bleu_is_measured=bool(self.cfg.eval_bleu),
            allow_other_teacher=self.cfg.allow_other_teacher,
        )

    def _given_length(self) -> int | None:
        """Return the updates of the student's life; None if the data and ``--max-epoch`` determine them."""
        total = LifeOptions(total_updates=self.cfg.total_updates or self.cfg.max_update or None).total_updates
        if not self.cfg.total_updates and self.cfg.max_epoch > 0 and not self.has_sharded_data(self.cfg.train_subset):
            return None
        if total is None and not self.cfg.max_epoch > 0:
            raise OptionError(
                "--total-updates: not given; give --max-update, --max-epoch or --total-updates, at least 1"
            )
        if total is None and self.has_sharded_data(self.cfg.train_subset):
            raise OptionError(
                f"--max-epoch: {self.cfg.max_epoch}; several data folders have epochs of different lengths; "
                "give --total-updates or --max-update"
            )
        return total

    def _cross_entropy_updates(self, total: int) -> int:
        given = self.cfg.cross_entropy_updates
        options = LifeOptions(total_updates=total, cross_entropy_updates=None if given == _NOT_GIVEN else given)
        warmup = options.cross_entropy_updates
        if warmup is None:
            warmup = round(total * self._cross_entropy_share)
        if not warmup < total:
            raise OptionError(
                f"--cross-entropy-updates: {warmup}; expected less than the student's life of {total} updates; "
                "no update would use the teacher"
            )
        logger.info("student life %d updates, the first %d with cross-entropy", total, warmup)
        logger.info(
            "the training loss is negative where the teacher sets it, -scale * sigmoid(Phi * log p); lower is better; "
            "nll_loss, ppl and all validation losses are those of cross-entropy"
        )
        return warmup

    def get_batch_iterator(self, dataset: FairseqDataset, *arguments: Any, **named: Any) -> EpochBatchIterator:
        """Run fairseq's method; with ``--max-epoch`` the training batches determine the student's life.

        Raises:
            OptionError: no update would use the teacher.
        """
        batches = super().get_batch_iterator(dataset, *arguments, **named)
        teacher = self.frozen_teacher
        if teacher is not None and not teacher.has_length and dataset is self.datasets.get(self.cfg.train_subset):
            total = updates_of_epochs(
                len(batches), self.cfg.max_epoch, self.cfg.update_freq, skip_remainder=self.cfg.skip_remainder_batch
            )
            total = min(total, self.cfg.max_update) if self.cfg.max_update > 0 else total
            teacher.begin_life(total, self._cross_entropy_updates(total))
        return batches

    def build_criterion(self, cfg: FairseqDataclass) -> FairseqCriterion:
        """Build the criterion.

        Raises:
            OptionError: a criterion other than ``dynamic_teacher_loss``, the only one that uses the teacher.
        """
        if self.frozen_teacher is not None and cfg._name != "dynamic_teacher_loss":
            raise OptionError(f"--criterion: {cfg._name}; --task l2t_dlf trains with --criterion dynamic_teacher_loss")
        return super().build_criterion(cfg)

    def train_step(
        self,
        sample: dict[str, Any],
        model: BaseFairseqModel,
        criterion: FairseqCriterion,
        optimizer: FairseqOptimizer,
        update_num: int,
        ignore_grad: bool = False,
    ) -> tuple[Tensor, float, dict[str, Any]]:
        """Run fairseq's step with the coefficients of ``update_num``, the same for all its micro-batches.

        Raises:
            OptionError: the task was built without a teacher.
        """
        parameter = next(model.parameters())
        required_teacher(self.frozen_teacher).prepare(update_num, parameter.device, parameter.dtype)
        result: tuple[Tensor, float, dict[str, Any]] = super().train_step(
            sample, model, criterion, optimizer, update_num, ignore_grad
        )
        return result

    def begin_valid_epoch(self, epoch: int, model: BaseFairseqModel) -> None:
        """Run fairseq's method and discard the dev measures of the previous validation."""
        super().begin_valid_epoch(epoch, model)
        if self.frozen_teacher is not None:
            self.frozen_teacher.begin_validation()

    def reduce_metrics(self, logging_outputs: list[dict[str, Any]], criterion: FairseqCriterion) -> None:
        """Run fairseq's method and add the same sums to the student's state."""
        super().reduce_metrics(logging_outputs, criterion)
        if self.frozen_teacher is not None:
            self.frozen_teacher.observe(logging_outputs)

    def state_dict(self) -> dict[str, Any]:
        """Return the task's entries of the checkpoint, with the student's state if there is a teacher."""
        entries: dict[str, Any] = super().state_dict()
        if self.frozen_teacher is None:
            return entries
        return {**entries, _CHECKPOINT_KEY: self.frozen_teacher.state_dict()}

    def checkpoint_entries(self, entries: dict[str, Any]) -> dict[str, Any]:
        """Return a checkpoint's entries with names of stock fairseq, so that its programs load it without this plugin.

        A task that is derived from this one keeps its own name: only its plugin knows how it differs.
        """
        is_own = type(self) is L2TTask and self.frozen_teacher is not None
        return with_stock_names(entries) if is_own else entries

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the result of `state_dict`; a checkpoint of another task leaves the student's state unchanged.

        Raises:
            ResumeError: the checkpoint is of a student of another teacher, and ``--allow-other-teacher`` is not given.
        """
        rest = {key: value for key, value in state_dict.items() if key != _CHECKPOINT_KEY}
        super().load_state_dict(rest)
        if self.frozen_teacher is not None and _CHECKPOINT_KEY in state_dict:
            self.frozen_teacher.load_state_dict(state_dict[_CHECKPOINT_KEY])
