"""Update rules and their adjoints on slices of the flat vectors, in place.

Rules are elementwise within their part of the vector, so that slices give the same bits as the whole vector. The dozen
temporary vectors of Adam's adjoint then stay in the cache, instead of new memory of the student's size for each
(measured: the page faults of 80 MB of new memory take ten times as long as the arithmetic).
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from fairseq_l2t.unroll.piecewise_rules import pieces
from fairseq_l2t.unroll.update_rules import Buffers, StepSize, UpdateRule

__all__ = ["SLICE_ELEMENTS", "adjoint_in_place", "apply_in_place"]

SLICE_ELEMENTS = 1 << 16
"""256 KiB of float32, several of which fit in a second-level cache. A multiple of every SIMD width, so that only the
last elements of a vector are processed one by one, as for the whole vector."""


def apply_in_place(rule: UpdateRule, omega: Tensor, buffers: Buffers, gradient: Tensor, size: StepSize) -> None:
    """Write the result of `UpdateRule.apply` into ``omega`` (n,) and ``buffers``; ``gradient`` (n,) does not change."""
    for part, own in _slices(omega, rule):
        moved, moments = own.apply(omega[part], tuple(buffer[part] for buffer in buffers), gradient[part], size)
        omega[part].copy_(moved)
        for buffer, moment in zip(buffers, moments, strict=True):
            buffer[part].copy_(moment)


def adjoint_in_place(
    rule: UpdateRule,
    omega: Tensor,
    buffers: Buffers,
    gradient: Tensor,
    size: StepSize,
    omega_bar: Tensor,
    buffers_bar: Buffers,
) -> Tensor:
    """Write the result of `UpdateRule.adjoint` into ``omega_bar`` (n,) and ``buffers_bar``.

    Returns:
        The cotangent of the gradient (n,), a new vector.
    """
    gradient_bar = omega_bar.new_empty(omega_bar.shape)
    for part, own in _slices(omega, rule):
        own_buffers = tuple(buffer[part] for buffer in buffers)
        own_bar = tuple(buffer[part] for buffer in buffers_bar)
        moved, moments, share = own.adjoint(omega[part], own_buffers, gradient[part], size, omega_bar[part], own_bar)
        gradient_bar[part].copy_(share)
        omega_bar[part].copy_(moved)
        for buffer, moment in zip(own_bar, moments, strict=True):
            buffer.copy_(moment)
    return gradient_bar


def _slices(vector: Tensor, rule: UpdateRule) -> Iterator[tuple[slice, UpdateRule]]:
    # One slice on a GPU: each slice costs a kernel launch there, and the allocator reuses its memory in any case.
    width = max(len(vector), 1) if vector.is_cuda else SLICE_ELEMENTS
    for part, own in pieces(rule, len(vector)):
        for first in range(part.start, part.stop, width):
            yield slice(first, min(first + width, part.stop)), own
