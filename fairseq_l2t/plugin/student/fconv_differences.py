"""Correction for fconv's gradient scaling in second derivatives that are differences of gradients.

fconv scales the gradient into its encoder's layers by a constant s (Gehring et al. 2017, section 3.5). If every
parameter were reached either through the scaling or beside it, the update would be ``g = D H`` with a diagonal D, and
``J^T v = H' D v`` is what the difference of two updates along D v gives, divided by D. The embeddings are reached both
ways: through the layers (way a, scaled) and, added to the layers' output, directly (way b). They count as two copies:
the copy on way a moves by s v and its difference is divided by s, the copy on way b moves by v.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from fairseq.models.fconv import FConvEncoder
from torch import Tensor, nn
from torch.func import functional_call

from fairseq_l2t.unroll.flat_parameters import FlatParameters

__all__ = ["FConvScaling", "scaling_of"]


def scaling_of(model: nn.Module, parameters: FlatParameters) -> FConvScaling | None:
    """Return how ``model`` scales gradients, None where it does not."""
    encoder = getattr(model, "encoder", None)
    return FConvScaling(encoder, parameters) if isinstance(encoder, FConvEncoder) else None


@dataclass
class _Note:
    """Record of one micro-batch, made during its forward and backward pass.

    Args:
        tokens: its source tokens (batch, length).
        generator_state: of torch's global generator before the embeddings' dropout.
        cotangent: (batch, length, width), the gradient that reaches the embeddings on way a.
    """

    tokens: Tensor
    generator_state: Tensor | None = None
    cotangent: Tensor | None = None

    def noted_cotangent(self) -> Tensor:
        """Return the cotangent.

        Raises:
            RuntimeError: no backward pass has reached the embeddings.
        """
        if self.cotangent is None:
            raise RuntimeError("fconv: no gradient reached the encoder's embeddings")
        return self.cotangent


class FConvScaling:
    """See `unroll.student.GradientScaling`.

    Args:
        encoder: of an fconv model.
        parameters: all of the student's parameters.
    """

    def __init__(self, encoder: FConvEncoder, parameters: FlatParameters) -> None:
        self._encoder, self._parameters = encoder, parameters
        self._scale = 1.0 / (2.0 * encoder.num_attention_layers)
        self._embeddings = (encoder.embed_tokens.weight, encoder.embed_positions.weight)
        within = {id(parameter) for parameter in encoder.parameters()} - {id(weight) for weight in self._embeddings}
        factors = [self._scale if id(one) in within else 1.0 for one in parameters.parameters]
        dtype = torch.promote_types(parameters.buffer.dtype, torch.float32)
        each = torch.tensor(factors, dtype=dtype).repeat_interleave(torch.tensor(parameters.sizes))
        self._factors = each.to(parameters.buffer.device)

    def direction(self, cotangent: Tensor) -> Tensor:
        """See `GradientScaling.direction`; embeddings move by v, and `noting` holds them back on way a."""
        return cotangent * self._factors

    def _of_embeddings(self, vector: Tensor) -> list[Tensor]:
        """Return the views of ``vector`` (n,) that belong to the embeddings."""
        part_of = {
            id(one): part for one, part in zip(self._parameters.parameters, self._parameters.split(vector), strict=True)
        }
        return [part_of[id(weight)] for weight in self._embeddings]

    @contextmanager
    def noting(self, scaled: Tensor | None = None) -> Iterator[list[_Note]]:
        """See `GradientScaling.noting`."""
        notes: list[_Note] = []
        weights = None if scaled is None else self._of_embeddings(scaled)
        encoder = self._encoder

        def begin(_module: nn.Module, arguments: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
            notes.append(_Note(arguments[0] if arguments else named["src_tokens"]))

        hooks = [
            encoder.register_forward_pre_hook(begin, with_kwargs=True),
            encoder.dropout_module.register_forward_pre_hook(lambda *_: self._note_generator_state(notes[-1])),
            encoder.fc1.register_forward_pre_hook(lambda _, inputs: self._on_way_a(inputs[0], notes[-1], weights)),
        ]
        try:
            yield notes
        finally:
            for hook in hooks:
                hook.remove()

    def corrected(self, difference: Tensor, before: list[_Note], after: list[_Note], scale: float) -> Tensor:
        """See `GradientScaling.corrected`."""
        difference.div_(self._factors)
        targets = self._of_embeddings(difference)
        for one, other in zip(before, after, strict=True):
            with torch.enable_grad():
                embedded = self._embedded(other, *self._embeddings)
                change = other.noted_cotangent() - one.noted_cotangent()
                shares = torch.autograd.grad(embedded, self._embeddings, change)
            # The difference holds them once already, scaled as in the update.
            for target, share in zip(targets, shares, strict=True):
                target.add_(share, alpha=scale * (1 / self._scale - 1))
        return difference

    # --- the encoder's first operations -----------------------------------------------------------------------

    def _embedded(self, note: _Note, tokens: Tensor, positions: Tensor) -> Tensor:
        """Return what the layers are given (batch, length, width) for other embeddings, under the same dropout."""
        encoder = self._encoder
        with _same_draws(note.tokens.device, note.generator_state):
            embedded = functional_call(encoder.embed_tokens, {"weight": tokens}, (note.tokens,))
            embedded = embedded + functional_call(encoder.embed_positions, {"weight": positions}, (note.tokens,))
            # forward, not the call, whose hook is for the encoder's own passes
            dropped: Tensor = encoder.dropout_module.forward(embedded)
        return dropped

    def _note_generator_state(self, note: _Note) -> None:
        if note.generator_state is None:  # the same module drops out between layers, too
            device = note.tokens.device
            note.generator_state = torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()

    def _on_way_a(self, embedded: Tensor, note: _Note, weights: list[Tensor] | None) -> tuple[Tensor]:
        if weights is None:
            held_back = embedded.view_as(embedded)
        else:
            with torch.no_grad():
                moved = self._embedded(note, *weights)
            held_back = embedded - (1 - self._scale) * moved

        def keep(cotangent: Tensor) -> None:
            note.cotangent = cotangent.detach()

        held_back.register_hook(keep)  # type: ignore[no-untyped-call]  # torch declares no types
        return (held_back,)


@contextmanager
def _same_draws(device: torch.device, generator_state: Tensor | None) -> Iterator[None]:
    """Draw inside from torch's global generator as it was; the caller's is restored on exit."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        if generator_state is not None and device.type == "cuda":
            torch.cuda.set_rng_state(generator_state, device)
        elif generator_state is not None:
            torch.set_rng_state(generator_state)
        yield
