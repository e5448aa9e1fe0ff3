"""Correction for padding rows in second derivatives that are differences of gradients.

An embedding's gradient of its padding row is 0 in the update, but padded positions read the row, and it moves if the
output layer shares it. The update is then ``g = D H`` with two copies of the row: D is 0 for the copy that is looked
up and 1 for the copy of the output layer. ``J^T v = H' D v``: the first copy does not move, and its gradient, which
the update leaves out, is part of the difference.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from fairseq_l2t.plugin.student.fconv_differences import FConvScaling
from fairseq_l2t.unroll.flat_parameters import FlatParameters

__all__ = ["PaddingRows"]


@dataclass
class _Notes:
    """Notes of one gradient.

    Args:
        of_rows: gradients (width,) that reach the padding rows by look-ups, by number of the embedding.
        others: notes of the scaling inside.
    """

    of_rows: dict[int, Tensor] = field(default_factory=dict)
    others: Any = None


class PaddingRows:
    """See `unroll.student.GradientScaling`.

    Args:
        model: the student's model; the embeddings of its decoder are corrected, because encoders mask padding.
        parameters: all of the student's parameters.
        inside: another scaling of the model, or None.
    """

    def __init__(self, model: nn.Module, parameters: FlatParameters, inside: FConvScaling | None) -> None:
        self._inside = inside
        self._embeddings: list[tuple[nn.Embedding, int, slice]] = []
        ends = torch.tensor(parameters.sizes).cumsum(0).tolist()
        end_of = {id(one): end for one, end in zip(parameters.parameters, ends, strict=True)}
        for module in model.get_submodule("decoder").modules():
            # Positions have padding rows, too; nothing shares them.
            if type(module) is nn.Embedding and module.padding_idx is not None and id(module.weight) in end_of:
                start = end_of[id(module.weight)] - module.weight.numel() + module.padding_idx * module.embedding_dim
                self._embeddings.append((module, module.padding_idx, slice(start, start + module.embedding_dim)))

    def direction(self, cotangent: Tensor) -> Tensor:
        """See `GradientScaling.direction`; the padding rows move by v, and `noting` holds them back in look-ups."""
        return cotangent if self._inside is None else self._inside.direction(cotangent)

    @contextmanager
    def noting(self, scaled: Tensor | None = None) -> Iterator[_Notes]:
        """See `GradientScaling.noting`."""
        notes = _Notes()
        hooks = [
            module.register_forward_hook(self._hook(number, padding, notes, None if scaled is None else scaled[place]))
            for number, (module, padding, place) in enumerate(self._embeddings)
        ]
        try:
            with nullcontext() if self._inside is None else self._inside.noting(scaled) as notes.others:
                yield notes
        finally:
            for hook in hooks:
                hook.remove()

    def corrected(self, difference: Tensor, before: _Notes, after: _Notes, scale: float) -> Tensor:
        """See `GradientScaling.corrected`."""
        if self._inside is not None:
            difference = self._inside.corrected(difference, before.others, after.others, scale)
        for number, found in after.of_rows.items():
            difference[self._embeddings[number][2]].add_(found - before.of_rows[number], alpha=scale)
        return difference

    @staticmethod
    def _hook(number: int, padding: int, notes: _Notes, movement: Tensor | None) -> Any:
        """Return a forward hook that notes what reaches the padding row, and takes its ``movement`` (width,) back."""

        def hook(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            padded = inputs[0].eq(padding).unsqueeze(-1)
            result = output if movement is None else output - padded * movement.to(output)

            def note(cotangent: Tensor) -> None:
                found = (cotangent.detach() * padded).flatten(0, -2).sum(0)
                notes.of_rows[number] = notes.of_rows.get(number, 0) + found

            result.register_hook(note)  # type: ignore[no-untyped-call]  # torch declares no types
            return result

        return hook
