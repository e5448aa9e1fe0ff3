"""A student of plain torch with a finite list of hypotheses, so that measures have a closed form."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from fairseq_l2t.objectives import Hypotheses
from fairseq_l2t.unroll.flat_parameters import FlatParameters

SENTENCES = ((0,), (1, 0), (2, 0), (1, 2, 0), (2, 1, 0))
"""All hypotheses; entry 0 ends a sentence."""

WORDS = ("", "a", "b")


class EnumerableStudent:
    """Fulfils `objectives.DevStudent`: a softmax over `SENTENCES` for each of ``pairs`` dev pairs.

    Args:
        pairs: number of dev pairs.
        at_once: pairs in one chunk.
    """

    def __init__(self, pairs: int = 3, at_once: int = 2, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        logits = torch.randn(pairs, len(SENTENCES), generator=generator, dtype=torch.float64)
        self.logits = nn.Parameter(logits)
        self.unused = nn.Parameter(torch.ones(4, dtype=torch.float64))
        self.parameters = FlatParameters([("logits", self.logits), ("unused", self.unused)])
        self.omega = self.parameters.buffer
        self._at_once = at_once

    def log_probs(self) -> Tensor:
        """Return log p of every sentence (pairs, sentences)."""
        return self.logits.log_softmax(-1)

    def dev_chunks(self, pairs: Sequence[int]) -> Iterator[list[int]]:
        """See `objectives.DevStudent`."""
        for start in range(0, len(pairs), self._at_once):
            yield list(pairs[start : start + self._at_once])

    def reference_log_probs(self, pairs: Sequence[int], inverse_temperature: float = 1.0) -> tuple[Tensor, Tensor]:
        """See `objectives.DevStudent`; the "tokens" of a reference are the first two sentences, temperature is 1."""
        log_probs = self.log_probs()[list(pairs), :2]
        keep = torch.tensor([[True, pair % 2 == 0] for pair in pairs])
        return log_probs, keep

    def draw(self, pairs: Sequence[int], samples: int, generator: torch.Generator) -> list[list[tuple[int, ...]]]:
        """See `objectives.DevStudent`."""
        probs = self.log_probs().detach().exp()[list(pairs)]
        drawn = torch.multinomial(probs, samples, replacement=True, generator=generator)
        return [[SENTENCES[choice] for choice in row] for row in drawn.tolist()]

    def hypothesis_chunks(self, drawn: Sequence[Sequence[tuple[int, ...]]]) -> Iterator[list[int]]:
        """See `objectives.DevStudent`."""
        for start in range(0, len(drawn), self._at_once):
            yield list(range(len(drawn))[start : start + self._at_once])

    def hypothesis_log_probs(self, pairs: Sequence[int], hypotheses: Hypotheses) -> Tensor:
        """See `objectives.DevStudent`."""
        columns = [SENTENCES.index(tokens) for tokens in hypotheses.tokens]
        return self.log_probs()[[pairs[position] for position in hypotheses.owner], columns]

    def hypothesis_text(self, tokens: Sequence[int]) -> str:
        """Return the words, without the end."""
        return " ".join(WORDS[token] for token in tokens if token)

    def reference_text(self, pair: int) -> str:
        """Return the same reference for every pair."""
        return "a b"
