import pytest
import torch
from fairseq.data import FairseqDataset, iterators

from fairseq_l2t.compat.skipped_remainder import patch_epoch_length

BATCHES = 9


class Numbers(FairseqDataset):
    supports_fetch_outside_dataloader = False

    def __getitem__(self, index):
        return index

    def __len__(self):
        return BATCHES

    def collater(self, samples):
        return torch.tensor(samples)


def epochs(state=None):
    found = iterators.EpochBatchIterator(
        Numbers(), Numbers().collater, [[index] for index in range(BATCHES)], seed=3, skip_remainder_batch=True
    )
    if state is not None:
        found.load_state_dict(state)
    return found


def batches(itr):
    return [int(batch) for batch in itr]


@pytest.mark.parametrize("done", [1, 3, 5, 7])
def test_a_resumed_epoch_has_the_rest_of_its_batches(done, monkeypatch):
    """Stock fairseq, the control, leaves batches out, or all of them."""
    whole = batches(epochs().next_epoch_itr())
    assert len(whole) == BATCHES - 1
    begun = epochs()
    itr = begun.next_epoch_itr()
    assert [int(next(itr)) for _ in range(done)] == whole[:done]
    state = begun.state_dict()
    resumed = epochs(state)
    assert batches(resumed.next_epoch_itr()) == whole[done:]
    assert resumed.end_of_epoch() and resumed.state_dict()["epoch"] == 2
    stock = iterators.EpochBatchIterator._get_iterator_for_epoch.__wrapped__
    monkeypatch.setattr(iterators.EpochBatchIterator, "_get_iterator_for_epoch", stock)
    assert len(batches(epochs(state).next_epoch_itr())) < len(whole[done:])


def test_a_second_patch_changes_nothing():
    before = iterators.EpochBatchIterator._get_iterator_for_epoch
    patch_epoch_length(iterators)
    assert iterators.EpochBatchIterator._get_iterator_for_epoch is before
