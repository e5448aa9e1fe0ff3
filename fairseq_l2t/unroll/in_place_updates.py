"""Update rules and their adjoints on slices of the flat vectors, in place.

Rules are elementwise, each in its part of the vector, so that a slice at a time gives the same bits as the whole, while
the dozen temporary vectors of Adam's adjoint stay in the cache instead of taking fresh memory of the student's size
each (measured: fresh 80 MB cost ten times what the arithmetic costs, all of it page faults).
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from fairseq_l2t.unroll.piecewise_rules import pieces
from fairseq_l2t.unroll.update_rules import StepSize, UpdateRule

__all__ = ["SLICE", "adjoint_in_place", "apply_in_place"]

SLICE = 1 << 16
"""Elements of a slice: 256 KiB of float32, several of which fit in a second-level cache. A multiple of every vector
width, so that only the last elements of a vector are treated singly, as they are when it is taken whole."""


def apply_in_place(
    rule: UpdateRule, omega: Tensor, buffers: tuple[Tensor, ...], gradient: Tensor, size: StepSize
) -> None:
    """Write the outcome of `UpdateRule.apply` over ``omega`` (n,) and ``buffers``; the gradient is left alone."""
    for part, own in _slices(omega, rule):
        moved, moments = own.apply(omega[part], tuple(buffer[part] for buffer in buffers), gradient[part], size)
        omega[part].copy_(moved)
        for buffer, moment in zip(buffers, moments, strict=True):
            buffer[part].copy_(moment)


def adjoint_in_place(
    rule: UpdateRule,
    omega: Tensor,
    buffers: tuple[Tensor, ...],
    gradient: Tensor,
    size: StepSize,
    omega_bar: Tensor,
    buffers_bar: tuple[Tensor, ...],
) -> Tensor:
    """Write the outcome of `UpdateRule.adjoint` over ``omega_bar`` (n,) and ``buffers_bar``.

    Returns:
        The cotangent of the gradient (n,), a new vector.
    """
    gradient_bar = omega_bar.new_empty(omega_bar.shape)
    for part, own in _slices(omega, rule):
        state = tuple(buffer[part] for buffer in buffers)
        state_bar = tuple(buffer[part] for buffer in buffers_bar)
        moved, moments, share = own.adjoint(omega[part], state, gradient[part], size, omega_bar[part], state_bar)
        gradient_bar[part].copy_(share)
        omega_bar[part].copy_(moved)
        for buffer, moment in zip(state_bar, moments, strict=True):
            buffer.copy_(moment)
    return gradient_bar


def _slices(vector: Tensor, rule: UpdateRule) -> Iterator[tuple[slice, UpdateRule]]:
    # On a GPU a slice would cost a kernel launch and save nothing: its allocator keeps what it has taken.
    width = max(len(vector), 1) if vector.is_cuda else SLICE
    for part, own in pieces(rule, len(vector)):
        for first in range(part.start, part.stop, width):
            yield slice(first, min(first + width, part.stop)), own
