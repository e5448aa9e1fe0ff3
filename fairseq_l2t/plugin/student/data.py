"""Batches of a fairseq student: the training data in fairseq-train's own order, and the split dev data."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from fairseq import utils
from fairseq.data import iterators
from torch import Tensor

from fairseq_l2t.plugin.student_options import OptionError

__all__ = ["DevData", "TrainBatches"]

logger = logging.getLogger(__name__)


class TrainBatches:
    """The training batches of one student's life, in the order ``fairseq-train --seed`` gives them.

    Args:
        trainer: fairseq's Trainer of the student; its configuration holds the seed.
        begin_epoch: called with the epoch number (from 1) whenever an epoch begins, the first included.
        end_epoch: called with the epoch number when one has ended.
    """

    def __init__(self, trainer, begin_epoch, end_epoch) -> None:
        self._trainer = trainer
        self._begin_epoch, self._end_epoch = begin_epoch, end_epoch
        self._epochs = trainer.get_train_iterator(epoch=1, load_dataset=False, disable_iterator_cache=True)
        self._grouped: Iterator[list[Any]] | None = None

    def next(self) -> list[dict[str, Any]]:
        """Return the micro-batches of the next update, on the student's device."""
        if self._grouped is None or not self._grouped.has_next():
            if self._grouped is not None:
                self._end_epoch(self._epochs.epoch)
            self._open_epoch()
        samples = next(self._grouped)
        return [utils.move_to_cuda(sample) for sample in samples] if self._trainer.cuda else list(samples)

    def position(self) -> dict[str, Any]:
        """Return where the next batch comes from, in plain types, for `seek`."""
        if self._grouped is None:
            return {"epoch": 1, "iterations_in_epoch": 0}
        # As it is, not as fairseq's state_dict would round it up at the end of an epoch: the end still
        # has to be announced.
        return {"epoch": self._epochs.epoch, "iterations_in_epoch": self._epochs.iterations_in_epoch}

    def seek(self, position: dict[str, Any]) -> None:
        """Go to a `position` of a life with the same seed and data; epochs before it are not announced again."""
        if position["iterations_in_epoch"] == 0:
            return
        batches = len(self._epochs)
        at_end = position["iterations_in_epoch"] >= batches
        start = 0 if at_end else position["iterations_in_epoch"]
        shuffle = position["epoch"] > self._trainer.cfg.dataset.curriculum
        self._epochs.load_state_dict(
            {"version": 2, "epoch": position["epoch"], "iterations_in_epoch": start, "shuffle": shuffle}
        )
        self._open_epoch()
        if at_end:
            for _ in self._grouped:
                pass

    def _open_epoch(self) -> None:
        cfg = self._trainer.cfg
        itr = self._epochs.next_epoch_itr(
            fix_batches_to_gpus=cfg.distributed_training.fix_batches_to_gpus,
            shuffle=self._epochs.next_epoch_idx > cfg.dataset.curriculum,
        )
        frequencies = cfg.optimization.update_freq
        frequency = frequencies[min(self._epochs.epoch, len(frequencies)) - 1]
        self._grouped = iterators.GroupedIterator(
            itr, frequency, skip_remainder_batch=cfg.optimization.skip_remainder_batch
        )
        self._begin_epoch(self._epochs.epoch)


class DevData:
    """The dev pairs, split into those that train the teacher and those that choose it.

    Args:
        task: a fairseq translation task with the splits ``train`` and ``valid`` loaded.
        split: name of the dev split.
        max_positions: longest source and target a model takes.
        holdout: share of the pairs that choose the teacher.
        seed: seed of the split.
        allow_overlap: go on where dev pairs also stand in the training data.

    Raises:
        OptionError: no dev pairs, none left after length filtering, too few to split, or overlap with train.
    """

    def __init__(
        self, task, split: str, max_positions, *, holdout: float, seed: int, allow_overlap: bool, train_split: str
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
        return self._dataset.collater([self._dataset[index] for index in pairs])

    def target(self, pair: int) -> Tensor:
        """Return the reference (length,) of a dev pair."""
        return self._dataset.tgt[pair]

    def source_length(self, pair: int) -> int:
        """Return the number of source tokens of a dev pair, end of sentence included."""
        return int(self._dataset.src_sizes[pair])

    def _usable(self, split: str, max_positions) -> list[int]:
        if len(self._dataset) == 0:
            raise OptionError(f"dev split {split}: 0 pairs; expected at least 2")
        kept, _ = self._dataset.filter_indices_by_size(self._dataset.ordered_indices(), max_positions)
        if len(kept) == 0:
            raise OptionError(
                f"dev split {split}: none of its {len(self._dataset)} pairs is within the length limits "
                f"{max_positions} (--max-source-positions, --max-target-positions)"
            )
        return sorted(int(index) for index in kept)

    def _check_overlap(self, train, split: str, allow_overlap: bool) -> None:
        dev = {_pair_key(self._dataset, index) for index in self.teaching + self.holdout}
        found = len(dev & {_pair_key(train, index) for index in range(len(train))})
        if found and not allow_overlap:
            raise OptionError(
                f"dev split {split}: {found} of its pairs also stand in the training data; remove them, "
                "or give --allow-dev-overlap"
            )
        if found:
            logger.warning("dev split %s: %d of its pairs also stand in the training data", split, found)


def _pair_key(dataset, index: int) -> tuple[bytes, bytes]:
    return dataset.src[index].numpy().tobytes(), dataset.tgt[index].numpy().tobytes()
