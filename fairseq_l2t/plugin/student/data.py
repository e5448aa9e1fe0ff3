"""Data of a fairseq student: training batches in the order of fairseq-train, and the dev pairs in two parts."""

from __future__ import annotations

import bisect
import itertools
import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from fairseq import utils
from fairseq.data import Dictionary, LanguagePairDataset, iterators
from fairseq.models import FairseqEncoderDecoderModel
from fairseq.tasks.translation import TranslationTask
from fairseq.trainer import Trainer
from torch import Tensor

from fairseq_l2t.plugin.student.split_files import dev_splits, load_split
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

    Pairs have numbers: those of the first split from 0, then those of the next split. Items may be padded
    (``--num-batch-buckets``); texts, lengths and the comparison with the training data leave the padding out.

    Args:
        task: a fairseq translation task with all these splits loaded.
        splits: names of the dev splits.
        max_positions: longest source and target, in tokens, that the model accepts.
        holdout: share of the pairs that select the best teacher; 0: none does.
        seed: seed of the division.
        allow_overlap: whether to accept dev pairs that also occur in the training data.
        train_split: name of the training split.
        skip_too_long: whether dev pairs beyond ``max_positions`` are left out without a warning.

    Raises:
        OptionError: no dev pairs, none within the length limits, too few to divide, or overlap with the training data.
    """

    def __init__(
        self,
        task: TranslationTask,
        splits: Sequence[str],
        max_positions: tuple[int, int],
        *,
        holdout: float,
        seed: int,
        allow_overlap: bool,
        train_split: str,
        skip_too_long: bool = False,
    ) -> None:
        self._parts = [task.dataset(split) for split in splits]
        self._starts = list(itertools.accumulate((len(part) for part in self._parts), initial=0))
        self._name = f"split {splits[0]}" if len(splits) == 1 else f"splits {', '.join(splits)}"
        usable = self._usable(max_positions, skip_too_long)
        held = round(len(usable) * holdout)
        if not (held >= 1 or holdout == 0) or held >= len(usable):
            raise OptionError(
                f"--dev-holdout: {holdout} of {len(usable)} usable pairs of {self._name}; both parts need a pair"
            )
        order = torch.randperm(len(usable), generator=torch.Generator().manual_seed(seed)).tolist()
        self.holdout = tuple(usable[i] for i in order[:held])
        self.teaching = tuple(usable[i] for i in order[held:])
        self._check_overlap(task.dataset(train_split), allow_overlap)

    def sample(self, pairs: Sequence[int]) -> dict[str, Any]:
        """Return the batch of the dev pairs with these numbers, as fairseq collates it (sorted by length)."""
        items = []
        for pair in pairs:
            part, index = self._place(pair)
            items.append({**part[index], "id": int(pair)})
        collated: dict[str, Any] = self._parts[0].collater(items)
        return collated

    def target(self, pair: int) -> Tensor:
        """Return the reference (length,) of a dev pair, without padding."""
        part, index = self._place(pair)
        return _unpadded(part.tgt[index], part.tgt_dict)

    def padded_target_length(self, pair: int) -> int:
        """Return the length of the reference of a dev pair as it is fed to the model."""
        part, index = self._place(pair)
        return int(part.tgt_sizes[index])

    def source_length(self, pair: int) -> int:
        """Return the number of source tokens of a dev pair, end of sentence included, without padding."""
        part, index = self._place(pair)
        return len(_unpadded(part.src[index], part.src_dict))

    def _place(self, pair: int) -> tuple[LanguagePairDataset, int]:
        """Return the split that a pair belongs to, and the pair's number in it."""
        number = bisect.bisect_right(self._starts, pair) - 1
        return self._parts[number], int(pair) - self._starts[number]

    def _usable(self, max_positions: tuple[int, int], skip_too_long: bool) -> list[int]:
        pairs = self._starts[-1]
        if pairs == 0:
            raise OptionError(f"dev {self._name}: 0 pairs; expected at least 2")
        usable: list[int] = []
        for start, part in zip(self._starts, self._parts, strict=False):
            kept, _ = part.filter_indices_by_size(np.arange(len(part)), max_positions)
            usable += [start + int(index) for index in kept]
        if not usable:
            raise OptionError(
                f"dev {self._name}: none of its {pairs} pairs is within the length limits "
                f"{max_positions} (--max-source-positions, --max-target-positions)"
            )
        if len(usable) < pairs:
            self._report_too_long(pairs - len(usable), max_positions, skip_too_long)
        return usable

    def _report_too_long(self, count: int, max_positions: tuple[int, int], skip_too_long: bool) -> None:
        logger.log(
            logging.INFO if skip_too_long else logging.WARNING,
            "dev %s: %d of its %d pairs are left out, because they exceed the length limits %s "
            "(--max-source-positions, --max-target-positions)%s",
            self._name,
            count,
            self._starts[-1],
            max_positions,
            "" if skip_too_long else "; fairseq-train refuses them without --skip-invalid-size-inputs-valid-test",
        )

    def _check_overlap(self, train: LanguagePairDataset, allow_overlap: bool) -> None:
        dev = {_pair_key(*self._place(pair)) for pair in self.teaching + self.holdout}
        found = len({key for index in range(len(train)) if (key := _pair_key(train, index)) in dev})
        if found and not allow_overlap:
            raise OptionError(
                f"dev {self._name}: {found} of its pairs also occur in the training data; remove them, "
                "or give --allow-dev-overlap"
            )
        if found:
            logger.warning("dev %s: %d of its pairs also occur in the training data", self._name, found)


def load_data(task: TranslationTask, options: StudentOptions, model: FairseqEncoderDecoderModel) -> DevData:
    """Load the training split and all dev splits into ``task`` as fairseq-train does, and return the dev pairs.

    Args:
        task: the translation task.
        options: data folder, names of the splits, share of held-back pairs.
        model: its length limits determine the usable dev pairs.

    Raises:
        OptionError: more than one data folder, files that `load_split` refuses, or dev pairs that `DevData` refuses.
        ValueError: numbered dev splits that are neither named nor combined.
    """
    cfg, given = options.cfg, options.namespace
    train = cfg.dataset.train_subset
    if task.has_sharded_data(train):
        raise OptionError(f"data: {cfg.task.data}; expected a single data folder")
    splits = dev_splits(cfg)
    for split in splits:
        load_split(task, split, combine=bool(cfg.dataset.combine_valid_subsets))
    load_split(task, train, combine=True)
    return DevData(
        task,
        splits,
        utils.resolve_max_positions(task.max_positions(), model.max_positions()),
        holdout=given.dev_holdout,
        seed=cfg.common.seed,
        allow_overlap=given.allow_dev_overlap,
        train_split=train,
        skip_too_long=cfg.dataset.skip_invalid_size_inputs_valid_test,
    )


def _pair_key(dataset: LanguagePairDataset, index: int) -> tuple[bytes, bytes]:
    source, target = _unpadded(dataset.src[index], dataset.src_dict), _unpadded(dataset.tgt[index], dataset.tgt_dict)
    return source.numpy().tobytes(), target.numpy().tobytes()


def _unpadded(tokens: Tensor, dictionary: Dictionary) -> Tensor:
    stripped: Tensor = utils.strip_pad(tokens, dictionary.pad())
    return stripped
