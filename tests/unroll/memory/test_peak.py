"""Peak memory against counts by hand."""

import torch

from fairseq_l2t.unroll.memory.peak import peak_bytes

SIZE = 1000
BYTES = 4 * SIZE


def test_simultaneous_tensors_are_counted():
    def two_at_a_time():
        first = torch.ones(SIZE)
        second = first + 1
        del first
        third = second + 1
        del second
        return third

    def three_at_a_time():
        first = torch.ones(SIZE)
        second = first + 1
        return second + first

    assert peak_bytes(two_at_a_time) == 2 * BYTES
    assert peak_bytes(three_at_a_time) == 3 * BYTES
    assert [peak_bytes(two_at_a_time) for _ in range(3)] == 3 * [2 * BYTES]  # freed tensors are not counted


def test_earlier_tensors_and_views_are_not_counted():
    weight = torch.ones(SIZE)
    assert peak_bytes(lambda: weight.view(10, -1)[2:].add_(1)) == 0


def test_a_backward_pass_is_counted():
    weight = torch.ones(SIZE, requires_grad=True)

    def forward():
        return weight.exp().sin()

    # forward: exp, which sin saves, and sin; backward: additionally the cotangents of exp and of the weight
    assert peak_bytes(forward) == 2 * BYTES
    assert peak_bytes(lambda: torch.autograd.grad(forward(), weight, torch.ones(SIZE))) > 3 * BYTES


def test_an_error_is_raised_and_does_not_change_later_counts():
    kept = []

    def failing():
        kept.append(torch.ones(SIZE))
        raise RuntimeError("inside")

    try:
        peak_bytes(failing)
    except RuntimeError as error:
        assert str(error) == "inside"
    assert peak_bytes(lambda: kept[0] + 1) == BYTES
