"""Data of a fairseq student: training batches in the order of fairseq-train, and the dev pairs in two parts."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from fairseq import utils
from fairseq.data import LanguagePairDataset, iterators
from fairseq.models import FairseqEncoderDecoderModel
from fairseq.tasks.translation import TranslationTask
from fairseq.trainer import Trainer
from torch import Tensor

from fairseq_l2t.plugin.student_options import OptionError, StudentOptions

__all__ = ["DevData", "TrainBatches", "load_data"]

logger = logging.getLogger(__name__)


class TrainBatches:
    """The training batches of one student's life, in the order of ``fairseq-train --seed``.

    Args:
        trainer: fairseq's Trainer of the student; its configuration contains the seed.
        begin_epoch: called with the epoch number (from 1) at the start of every epoch, the first included.
        end_epoch: called with the epoch number at the end of every epoch.
    """

    def __init__(
        self, trainer: Trainer, begin_epoch: Callable[[int], object], end_epoch: Callable[[int], object]
    ) -> None:
        self._trainer = trainer
        self._begin_epoch, self._end_epoch = begin_epoch, end_epoch
        self._epochs = trainer.get_train_iterator(epoch=1, load_dataset=False, disable_iterator_cache=True)
        self._grouped: iterators.GroupedIterator | None = None

    def next(self) -> list[dict[str, Any]]:
        """Return the micro-batches of the next update, on the student's device."""
        if self._grouped is None:
            self._grouped = self._open_epoch()
        elif not self._grouped.has_next():
            self._end_epoch(self._epochs.epoch)
            self._grouped = self._open_epoch()
        samples = next(self._grouped)
        return [utils.move_to_cuda(sample) for sample in samples] if self._trainer.cuda else list(samples)

    @property
    def per_epoch(self) -> int:
        """Number of micro-batches of an epoch."""
        return len(self._epochs)

    def position(self) -> dict[str, Any]:
        """Return the position of the next batch, in plain types, for `seek`."""
        if self._grouped is None:
            return {"epoch": 1, "iterations_in_epoch": 0}
        # fairseq's state_dict rounds up at the end of an epoch; here that end still has to be announced.
        return {"epoch": self._epochs.epoch, "iterations_in_epoch": self._epochs.iterations_in_epoch}

    def seek(self, position: dict[str, Any]) -> None:
        """Go to a `position` of a life with the same seed and data, without the callbacks of earlier epochs.

        Raises:
            ValueError: a position beyond the end of an epoch.
        """
        if position["iterations_in_epoch"] == 0:
            return
        batches = len(self._epochs)
        if position["iterations_in_epoch"] > batches:
            raise ValueError(
                f"position of the life: batch {position['iterations_in_epoch']} of an epoch; expected at most {batches}"
            )
        at_end = position["iterations_in_epoch"] >= batches
        start = 0 if at_end else position["iterations_in_epoch"]
        shuffle = position["epoch"] > self._trainer.cfg.dataset.curriculum
        self._epochs.load_state_dict(
            {"version": 2, "epoch": position["epoch"], "iterations_in_epoch": start, "shuffle": shuffle}
        )
        self._grouped = self._open_epoch()
        if at_end:
            for _ in self._grouped:
                pass

    def _open_epoch(self) -> iterators.GroupedIterator:
        cfg = self._trainer.cfg
        batches = self._epochs.next_epoch_itr(
            fix_batches_to_gpus=cfg.distributed_training.fix_batches_to_gpus,
            shuffle=self._epochs.next_epoch_idx > cfg.dataset.curriculum,
        )
        frequencies = cfg.optimization.update_freq
        frequency = frequencies[min(self._epochs.epoch, len(frequencies)) - 1]
        grouped = iterators.GroupedIterator(
            batches, frequency, skip_remainder_batch=cfg.optimization.skip_remainder_batch
        )
        self._begin_epoch(self._epochs.epoch)
        return grouped


class DevData:
    """The dev pairs in two parts: `teaching` pairs train the teacher, `holdout` pairs select the best one.

    Args:
        task: a fairseq translation task with both splits loaded.
        split: name of the dev split.
        max_positions: longest source and target, in tokens, that the model accepts.
        holdout: share of the pairs that select the best teacher.
        seed: seed of the division.
        allow_overlap: whether to accept dev pairs that also occur in the training data.
        train_split: name of the training split.

    Raises:
        OptionError: no dev pairs, none within the length limits, too few to divide, or overlap with the training data.
    """

    def __init__(
        self,
        task: TranslationTask,
        split: str,
        max_positions: tuple[int, int],
        *,
        holdout: float,
        seed: int,
        allow_overlap: bool,
        train_split: str,
    ) -> None:
        self._dataset = task.dataset(split)
        usable = self._usable(split, max_positions)
        held = round(len(usable) * holdout)
        if not 1 <= held < len(usable):
            raise OptionError(
                f"--dev-holdout: {holdout} of {len(usable)} usable pairs of split {split}; both parts need a pair"
            )
        order = torch.randperm(len(usable), generator=torch.Generator().manual_seed(seed)).tolist()
        self.holdout = tuple(usable[i] for i in order[:held])
        self.teaching = tuple(usable[i] for i in order[held:])
        self._check_overlap(task.dataset(train_split), split, allow_overlap)

    def sample(self, pairs: Sequence[int]) -> dict[str, Any]:
        """Return the batch of the dev pairs with these numbers, as fairseq collates it (sorted by length)."""
        collated: dict[str, Any] = self._dataset.collater([self._dataset[index] for index in pairs])
        return collated

    def target(self, pair: int) -> Tensor:
        """Return the reference (length,) of a dev pair."""
        reference: Tensor = self._dataset.tgt[pair]
        return reference

    def source_length(self, pair: int) -> int:
        """Return the number of source tokens of a dev pair, end of sentence included."""
        return int(self._dataset.src_sizes[pair])

    def _usable(self, split: str, max_positions: tuple[int, int]) -> list[int]:
        if len(self._dataset) == 0:
            raise OptionError(f"dev split {split}: 0 pairs; expected at least 2")
        kept, _ = self._dataset.filter_indices_by_size(self._dataset.ordered_indices(), max_positions)
        if len(kept) == 0:
            raise OptionError(
                f"dev split {split}: none of its {len(self._dataset)} pairs is within the length limits "
                f"{max_positions} (--max-source-positions, --max-target-positions)"
            )
        return sorted(int(index) for index in kept)

    def _check_overlap(self, train: LanguagePairDataset, split: str, allow_overlap: bool) -> None:
        dev = {_pair_key(self._dataset, index) for index in self.teaching + self.holdout}
        found = len(dev & {_pair_key(train, index) for index in range(len(train))})
        if found and not allow_overlap:
            raise OptionError(
                f"dev split {split}: {found} of its pairs also occur in the training data; remove them, "
                "or give --allow-dev-overlap"
            )
        if found:
            logger.warning("dev split %s: %d of its pairs also occur in the training data", split, found)


def load_data(task: TranslationTask, options: StudentOptions, model: FairseqEncoderDecoderModel) -> DevData:
    """Load training and dev split into ``task`` and return the dev pairs.

    Args:
        task: the translation task.
        options: data folder, names of the splits, share of held-back pairs.
        model: its length limits determine the usable dev pairs.

    Raises:
        OptionError: more than one data folder, a split without pairs, or dev pairs that `DevData` refuses.
    """
    cfg, given = options.cfg, options.namespace
    train, valid = cfg.dataset.train_subset, cfg.dataset.valid_subset.split(",")[0]
    if task.has_sharded_data(train):
        raise OptionError(f"data: {cfg.task.data}; expected a single data folder")
    for split in (valid, train):
        _refuse_empty(cfg.task.data, split)
    task.load_dataset(valid, combine=False, epoch=1)
    task.load_dataset(train, combine=False, epoch=1)
    return DevData(
        task,
        valid,
        utils.resolve_max_positions(task.max_positions(), model.max_positions()),
        holdout=given.dev_holdout,
        seed=cfg.common.seed,
        allow_overlap=given.allow_dev_overlap,
        train_split=train,
    )


def _refuse_empty(folder: str, split: str) -> None:
    """Refuse a split without pairs, whose files fairseq cannot map into memory."""
    for path in sorted(Path(folder).glob(f"{split}.*.bin")):
        if path.stat().st_size == 0:
            raise OptionError(f"split {split}: {path} is empty; expected at least one pair, for dev at least 2")


def _pair_key(dataset: LanguagePairDataset, index: int) -> tuple[bytes, bytes]:
    return dataset.src[index].numpy().tobytes(), dataset.tgt[index].numpy().tobytes()
