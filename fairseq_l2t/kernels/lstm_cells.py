"""The LSTM cell, its gradient, and the tangents of both, step by step over arrays for a whole sequence.

The cell, with gates ``i, f, g, o`` of the preactivations z (Hochreiter and Schmidhuber 1997; gate order of PyTorch)::

    c = f * c' + i * g        h = o * tanh(c)

A step computes only the terms that depend on the step before; the other factors are computed for all steps at once.
With S the slopes of the gates and ``M = (g, c', i, tanh c)``, the gradient needs only two products of the forward pass,
``A = M * S`` and ``E = o * (1 - tanh^2 c)``::

    dc_total = dc + dh * E    dz = (dc_total, dc_total, dc_total, dh) * A    dc' = dc_total * f

The same A and E give the tangent of the forward step. Their derivative along it gives the tangent of the gradient,
which is the second derivative.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["CellGradients", "CellSecondOrder", "CellTangents", "Cells"]


class Cells:
    """The cells of one layer, for all steps.

    Args:
        sizes: rows (sentences) of each step, in the order of the arrays.
        hidden: width of the layer.
        like: a tensor with the dtype and device of the arrays.
    """

    def __init__(self, sizes: Sequence[int], hidden: int, like: Tensor) -> None:
        rows = sum(sizes)
        self.sizes, self.hidden = list(sizes), hidden
        self.gates = like.new_empty(rows, 4, hidden)
        self.before, self.squashed = like.new_empty(rows, hidden), like.new_empty(rows, hidden)
        self._flat = self.gates.view(rows, 4 * hidden).split_with_sizes(self.sizes)
        self._gates = [gate.split_with_sizes(self.sizes) for gate in self.gates.unbind(1)]
        self._before, self._squashed = (
            self.before.split_with_sizes(self.sizes),
            self.squashed.split_with_sizes(self.sizes),
        )
        self._factors: tuple[Tensor, Tensor, Tensor, Tensor] | None = None

    def step(self, k: int, preactivation: Tensor, cell: Tensor, hidden: Tensor) -> None:
        """Replace ``cell`` (b, width) by the next, and write ``hidden`` (b, width), for preactivations (b, 4 width)."""
        i, f, g, o = (gate[k] for gate in self._gates)
        torch.sigmoid(preactivation, out=self._flat[k])
        torch.tanh(preactivation.narrow(1, 2 * self.hidden, self.hidden), out=g)
        self._before[k].copy_(cell)
        cell.mul_(f).addcmul_(i, g)
        torch.tanh(cell, out=self._squashed[k])
        torch.mul(o, self._squashed[k], out=hidden)

    def kept(self) -> tuple[Tensor, ...]:
        """Return all tensors held here."""
        return (self.gates, self.before, self.squashed, *(self._factors or ()))

    def factors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return S, M and A (rows, 4, width), and E (rows, width), of the module's docstring."""
        if self._factors is None:
            i, _, g, o = self.gates.unbind(1)
            slopes = torch.addcmul(self.gates, self.gates, self.gates, value=-1)
            slopes[:, 2] = 1 - g * g
            partners = torch.stack((g, self.before, i, self.squashed), 1)
            passing = torch.addcmul(o, o, self.squashed * self.squashed, value=-1)
            self._factors = slopes, partners, partners * slopes, passing
        return self._factors


class _Stepwise:
    """A and E of `Cells`, and the forget gate, as views per step."""

    def __init__(self, cells: Cells) -> None:
        self.cells = cells
        _, _, into_gates, passing = cells.factors()
        self._all = into_gates.split_with_sizes(cells.sizes)
        self._three = into_gates[:, :3].split_with_sizes(cells.sizes)
        self._out = into_gates[:, 3].split_with_sizes(cells.sizes)
        self._passing = passing.split_with_sizes(cells.sizes)
        self._forget = cells.gates[:, 1].split_with_sizes(cells.sizes)


class CellGradients(_Stepwise):
    """The gradient of the steps of `Cells`, computed last step first.

    ``preactivation`` (rows, 4 width), ``hidden`` and ``cell`` (rows, width): the gradients dz, dh and dc_total.
    """

    def __init__(self, cells: Cells) -> None:
        super().__init__(cells)
        rows, hidden = cells.before.shape
        self.preactivation = cells.before.new_empty(rows, 4 * hidden)
        self.hidden, self.cell = cells.before.new_empty(rows, hidden), cells.before.new_empty(rows, hidden)
        gates = self.preactivation.view(rows, 4, hidden)
        self.steps = self.preactivation.split_with_sizes(cells.sizes)
        self._d_three, self._d_out = (
            gates[:, :3].split_with_sizes(cells.sizes),
            gates[:, 3].split_with_sizes(cells.sizes),
        )
        self._d_hidden, self._d_cell = (
            self.hidden.split_with_sizes(cells.sizes),
            self.cell.split_with_sizes(cells.sizes),
        )

    def kept(self) -> tuple[Tensor, ...]:
        """Return all tensors held here, including those of the cells."""
        return (self.preactivation, self.hidden, self.cell, *self.cells.kept())

    def step(self, k: int, d_hidden: Tensor, d_cell: Tensor) -> Tensor:
        """Return dz (b, 4 width) for dh (b, width) and dc (b, width); replace dc by that of the step before."""
        total = torch.addcmul(d_cell, d_hidden, self._passing[k], out=self._d_cell[k])
        torch.mul(total.unsqueeze(1), self._three[k], out=self._d_three[k])
        torch.mul(d_hidden, self._out[k], out=self._d_out[k])
        torch.mul(total, self._forget[k], out=d_cell)
        self._d_hidden[k].copy_(d_hidden)
        return self.steps[k]


class CellTangents(_Stepwise):
    """The tangents of the steps of `Cells` along a direction.

    ``preactivation`` (rows, 4, width) the tangents of z; ``before`` and ``after`` (rows, width) those of c' and c.
    """

    def __init__(self, cells: Cells) -> None:
        super().__init__(cells)
        self.preactivation = torch.empty_like(cells.gates)
        self.before, self.after = torch.empty_like(cells.before), torch.empty_like(cells.before)
        rows, hidden = cells.before.shape
        self.steps = self.preactivation.view(rows, 4 * hidden).split_with_sizes(cells.sizes)
        self._steps = self.preactivation.split_with_sizes(cells.sizes)
        self._before, self._after = self.before.split_with_sizes(cells.sizes), self.after.split_with_sizes(cells.sizes)

    def step(self, k: int, cell: Tensor, hidden: Tensor) -> None:
        """Replace the tangent of c (b, width) by the next, and write that of h; ``steps[k]`` is the tangent of z."""
        self._before[k].copy_(cell)
        weighted = self._steps[k] * self._all[k]
        torch.addcmul(weighted[:, :3].sum(1), cell, self._forget[k], out=self._after[k])
        torch.addcmul(weighted[:, 3], self._after[k], self._passing[k], out=hidden)
        cell.copy_(self._after[k])


class CellSecondOrder(_Stepwise):
    """The tangent of `CellGradients` along `CellTangents`: linear steps, with terms computed in advance.

    ``preactivation`` (rows, 4 width): the tangents of dz.
    """

    def __init__(self, tangents: CellTangents, gradients: CellGradients) -> None:
        cells = tangents.cells
        super().__init__(cells)
        slopes, partners, _, _ = cells.factors()
        i, _, g, o = cells.gates.unbind(1)
        gates = slopes * tangents.preactivation
        d_i, d_f, d_g, d_o = gates.unbind(1)
        flat = torch.addcmul(torch.ones_like(o), cells.squashed, cells.squashed, value=-1)
        squashed = flat * tangents.after
        moved_slopes = torch.addcmul(gates, cells.gates, gates, value=-2)
        moved_slopes[:, 2] = -2 * g * d_g
        moved = torch.stack((d_g, tangents.before, d_i, squashed), 1).mul_(slopes).addcmul_(partners, moved_slopes)
        moved[:, :3] *= gradients.cell.unsqueeze(1)
        moved[:, 3] *= gradients.hidden
        into_cell = (d_o * flat).addcmul_(o * cells.squashed, squashed, value=-2).mul_(gradients.hidden)
        rows, hidden = cells.before.shape
        self.preactivation = moved.view(rows, 4 * hidden)
        self.steps = self.preactivation.split_with_sizes(cells.sizes)
        self._m_three, self._m_out = (
            moved[:, :3].split_with_sizes(cells.sizes),
            moved[:, 3].split_with_sizes(cells.sizes),
        )
        self._into_cell = into_cell.split_with_sizes(cells.sizes)
        self._into_before = (gradients.cell * d_f).split_with_sizes(cells.sizes)

    def step(self, k: int, d_hidden: Tensor, d_cell: Tensor) -> Tensor:
        """Return the tangent of dz (b, 4 width) for those of dh and dc (b, width); see `CellGradients.step`."""
        total = torch.addcmul(d_cell, d_hidden, self._passing[k]).add_(self._into_cell[k])
        self._m_three[k].addcmul_(total.unsqueeze(1), self._three[k])
        self._m_out[k].addcmul_(d_hidden, self._out[k])
        torch.addcmul(self._into_before[k], total, self._forget[k], out=d_cell)
        return self.steps[k]
