"""``--skip-remainder-batch`` after a resumption in the middle of an epoch.

Versions: fairseq 0.12.2 (facebookresearch/fairseq#4973, #5344). The length of the epoch is taken from the batches that
are left and compared with the number of batches since its beginning: a run that is resumed in the second half of an
epoch ends with ``UnboundLocalError: valid_losses``, and one in the first half leaves batches out.
Without it fails: tests/compat/test_skipped_remainder.py::test_a_resumed_epoch_has_the_rest_of_its_batches.

This file is loaded by path, before the package may be imported.
"""

import functools
import logging
from types import ModuleType
from typing import Any

_MARK = "fairseq_l2t_counts_from_the_beginning"


def patch_epoch_length(iterators: ModuleType) -> None:
    """Count the batches before the resumption too. ``iterators`` is the module ``fairseq.data.iterators``."""
    iterator = iterators.EpochBatchIterator
    original = iterator._get_iterator_for_epoch
    if hasattr(original, _MARK):
        return
    logger = logging.getLogger(iterators.__name__)

    @functools.wraps(original)
    def of_epoch(self: Any, epoch: int, shuffle: bool, fix_batches_to_gpus: bool = False, offset: int = 0) -> Any:
        if not (self.skip_remainder_batch and offset):
            return original(self, epoch, shuffle, fix_batches_to_gpus, offset)
        self.skip_remainder_batch = False
        try:
            found = original(self, epoch, shuffle, fix_batches_to_gpus, offset)
        finally:
            self.skip_remainder_batch = True
        if found is not None:
            total = offset + len(self.batch_sampler) - 1
            found.take(total)
            logger.info(f"skip final residual batch, total_num_itrs = {total}")
        return found

    setattr(of_epoch, _MARK, True)
    iterator._get_iterator_for_epoch = of_epoch
