"""The task ``l2t_dlf``: fairseq's translation task, with a teacher that sets the loss of each update."""

import logging
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from fairseq.tasks import register_task
from fairseq.tasks.translation import TranslationConfig, TranslationTask
from omegaconf import II

from fairseq_l2t.compat.task_state import restore_task_state
from fairseq_l2t.plugin.frozen_teacher import Teaching
from fairseq_l2t.storage import Vocabulary, load_teacher

__all__ = ["L2TConfig", "L2TTask", "vocabulary_of"]

logger = logging.getLogger(__name__)


@dataclass
class L2TConfig(TranslationConfig):
    """Options of the task, beside those of fairseq's translation task."""

    teacher_path: Optional[str] = field(  # noqa: UP045  fairseq reads no other spelling
        default=None,
        metadata={"help": "teacher file written by l2t-train-teacher; needed to train, not to decode"},
    )
    total_updates: int = field(
        default=0,
        metadata={"help": "length of the student's life, for its progress (default: --max-update)"},
    )
    cross_entropy_updates: int = field(
        default=-1,
        metadata={
            "help": "updates of plain cross-entropy before the teacher takes over "
            "(default: the share of its life the teacher was trained with)"
        },
    )
    max_update: int = II("optimization.max_update")


def vocabulary_of(dictionary) -> Vocabulary:
    """Return size and fingerprint of a fairseq dictionary, as teacher files record them."""
    return Vocabulary.of_symbols(dictionary.symbols)


@register_task("l2t_dlf", dataclass=L2TConfig)
class L2TTask(TranslationTask):
    """Translation under a frozen teacher.

    Decoding and validation need no teacher, so a checkpoint outlives its teacher file. Training reads it before
    the model is built and before any data is. The student's state travels in the checkpoint (``task_state``).
    """

    def __init__(self, cfg: L2TConfig, src_dict, tgt_dict) -> None:
        super().__init__(cfg, src_dict, tgt_dict)
        self.teaching: Teaching | None = None
        restore_task_state()

    def build_model(self, cfg, from_checkpoint: bool = False):
        """Build the student; when it is to be trained, read the teacher first.

        Raises:
            ValueError: no teacher given, a teacher of another vocabulary or of measures that are not taken here,
                or no length of the student's life.
            TeacherFileError: a teacher file that cannot be trusted.
        """
        if not from_checkpoint:
            self.teaching = self._build_teaching()
        return super().build_model(cfg, from_checkpoint)

    def _build_teaching(self) -> Teaching:
        if not self.cfg.teacher_path:
            raise ValueError("--teacher-path: not given; --task l2t_dlf trains under a teacher file")
        total = self.cfg.total_updates or self.cfg.max_update
        if total < 1:
            raise ValueError(f"--total-updates: {total}; give --max-update or --total-updates, at least 1")
        file = load_teacher(Path(self.cfg.teacher_path), vocabulary=vocabulary_of(self.tgt_dict))
        warmup = self.cfg.cross_entropy_updates
        if warmup < 0:
            warmup = round(total * file.settings.cross_entropy_updates / file.settings.total_updates)
        if not warmup < total:
            raise ValueError(
                f"--cross-entropy-updates: {warmup}; expected less than the student's life of {total} updates: "
                "the teacher would never speak"
            )
        logger.info(
            "teacher %s: %d keys, features %s; student life %d updates, the first %d with cross-entropy",
            file.path,
            file.teacher.keys,
            ", ".join(file.teacher.features),
            total,
            warmup,
        )
        return Teaching(
            file, total_updates=total, cross_entropy_updates=warmup, bleu_is_measured=bool(self.cfg.eval_bleu)
        )

    def build_criterion(self, cfg):
        """Build the criterion.

        Raises:
            ValueError: another one than ``dynamic_teacher_loss``, which alone asks the teacher.
        """
        if self.teaching is not None and cfg._name != "dynamic_teacher_loss":
            raise ValueError(f"--criterion: {cfg._name}; --task l2t_dlf trains with --criterion dynamic_teacher_loss")
        return super().build_criterion(cfg)

    def train_step(self, sample, model, criterion, optimizer, update_num, ignore_grad=False):
        """As fairseq's; the coefficients are those of ``update_num``, the same for all its micro-batches."""
        parameter = next(model.parameters())
        self.teaching.prepare(update_num, parameter.device, parameter.dtype)
        return super().train_step(sample, model, criterion, optimizer, update_num, ignore_grad)

    def begin_valid_epoch(self, epoch, model) -> None:
        """Start to collect the dev measures of the state anew."""
        super().begin_valid_epoch(epoch, model)
        if self.teaching is not None:
            self.teaching.begin_validation()

    def reduce_metrics(self, logging_outputs, criterion) -> None:
        """As fairseq's; the same sums feed the student's state."""
        super().reduce_metrics(logging_outputs, criterion)
        if self.teaching is not None:
            self.teaching.observe(logging_outputs)

    def state_dict(self) -> dict[str, Any]:
        """Return the task state of the checkpoint, with the student's state when a teacher is at work."""
        state = super().state_dict()
        return state if self.teaching is None else {**state, "teaching": self.teaching.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; a checkpoint of another task leaves the state as it is."""
        rest = {key: value for key, value in state_dict.items() if key != "teaching"}
        super().load_state_dict(rest)
        if self.teaching is not None and "teaching" in state_dict:
            self.teaching.load_state_dict(state_dict["teaching"])
