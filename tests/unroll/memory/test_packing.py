"""Batches copied into a few large blocks are equal when unpacked."""

from collections import namedtuple

import pytest
import torch

from fairseq_l2t.unroll.memory.packing import Packer, bytes_within

Pair = namedtuple("Pair", "first second")


def sample(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        {
            "net_input": {"src_tokens": torch.randint(9, (3, 4), generator=generator), "lengths": torch.ones(3).long()},
            "weights": torch.rand(5, generator=generator, dtype=torch.float64),
            "mask": torch.tensor([True, False]),
            "turned": torch.rand(2, 3, generator=generator).t(),
            "number": torch.tensor(7),
            "nothing": torch.empty(0, 4),
            "ntokens": 12,
            "name": None,
        },
        (torch.arange(3, dtype=torch.int32), "text"),
    ]


def assert_equal(found, expected):
    assert type(found) is type(expected)
    if isinstance(expected, torch.Tensor):
        assert found.dtype == expected.dtype
        assert torch.equal(found, expected)
    elif isinstance(expected, dict):
        assert list(found) == list(expected)
        for key in expected:
            assert_equal(found[key], expected[key])
    elif isinstance(expected, (list, tuple)):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_equal(one, other)
    else:
        assert found == expected


@pytest.mark.parametrize("block", [1, 100, 2**20])
def test_unpacked_values_are_equal(block):
    packer = Packer(block)
    originals = [sample(seed) for seed in range(20)]
    packed = [packer.pack(value) for value in originals]
    expected = [sample(seed) for seed in range(20)]
    for value in originals:
        value[0]["weights"].zero_()  # the packer has copies
    for one, other in zip(packed, expected, strict=True):
        assert_equal(packer.unpack(one), other)
    with pytest.raises(AssertionError):
        assert_equal(packer.unpack(packed[0]), expected[1])


def test_tensors_share_a_block():
    packer = Packer(2**20)
    found = [packer.unpack(packer.pack(sample(seed)))[0]["weights"] for seed in range(20)]
    assert len({tensor.untyped_storage().data_ptr() for tensor in found}) == 1
    assert len({tensor.data_ptr() for tensor in found}) == 20


def test_other_values_are_not_copied():
    pair, wanted = Pair(torch.ones(2), 1), torch.ones(2, requires_grad=True)
    sparse = torch.eye(3).to_sparse()
    found = (packer := Packer(100)).unpack(packer.pack([pair, wanted, sparse]))
    assert [one is other for one, other in zip(found, [pair, wanted, sparse], strict=True)] == [True] * 3


def test_bytes_within():
    assert bytes_within([{"a": torch.ones(3), "b": (torch.ones(2, dtype=torch.float64), 5)}, None]) == 28
