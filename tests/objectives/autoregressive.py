"""A student of plain torch that writes symbol by symbol, small enough to list every output."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from fairseq_l2t.objectives import Hypotheses
from fairseq_l2t.unroll.flat_parameters import FlatParameters

WORDS = ("", "a", "b", "c")
"""Symbol 0 ends a sentence; it is also the symbol before the first."""

LONGEST = 3

REFERENCES = ("a b c", "b a", "c", "a a b")


def every_output(words: Sequence[int], end: int, longest: int) -> list[tuple[int, ...]]:
    """Return all possible samples: sentences that end within ``longest`` symbols, and those cut there."""
    ended = [(*some, end) for length in range(longest) for some in itertools.product(words, repeat=length)]
    return ended + list(itertools.product(words, repeat=longest))


OUTPUTS = every_output((1, 2, 3), 0, LONGEST)


class AutoregressiveStudent:
    """Fulfils `objectives.DevStudent`: a softmax over the next symbol for each pair, position and symbol before.

    Args:
        at_once: pairs in one chunk.
    """

    def __init__(self, at_once: int = 3, seed: int = 0) -> None:
        shape = (len(REFERENCES), LONGEST, len(WORDS), len(WORDS))
        generator = torch.Generator().manual_seed(seed)
        self.logits = nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64))
        self.parameters = FlatParameters([("logits", self.logits)])
        self.omega = self.parameters.buffer
        self._at_once = at_once

    def dev_chunks(self, pairs: Sequence[int]) -> Iterator[list[int]]:
        """See `objectives.DevStudent`."""
        for start in range(0, len(pairs), self._at_once):
            yield list(pairs[start : start + self._at_once])

    def draw(self, pairs: Sequence[int], samples: int, generator: torch.Generator) -> list[list[tuple[int, ...]]]:
        """See `objectives.DevStudent`."""
        probs = self.logits.detach().softmax(-1)[list(pairs)]
        before = torch.zeros(len(pairs), samples, dtype=torch.long)
        steps = []
        for position in range(LONGEST):
            rows = probs[:, position].gather(1, before.unsqueeze(-1).expand(-1, -1, len(WORDS)))
            before = torch.multinomial(rows.flatten(0, 1), 1, generator=generator).view_as(before)
            steps.append(before)
        return [[_until_end(tokens) for tokens in row] for row in torch.stack(steps, dim=-1).tolist()]

    def hypothesis_chunks(self, drawn: Sequence[Sequence[tuple[int, ...]]]) -> Iterator[list[int]]:
        """See `objectives.DevStudent`."""
        for start in range(0, len(drawn), self._at_once):
            yield list(range(len(drawn))[start : start + self._at_once])

    def hypothesis_log_probs(self, pairs: Sequence[int], hypotheses: Hypotheses) -> Tensor:
        """See `objectives.DevStudent`."""
        places = [
            (number, (pairs[owner], position, before, token))
            for number, (owner, tokens) in enumerate(zip(hypotheses.owner, hypotheses.tokens, strict=True))
            for position, (before, token) in enumerate(zip((0, *tokens), tokens, strict=False))
        ]
        chosen = self.logits.log_softmax(-1)[tuple(torch.tensor([place for _, place in places]).T)]
        total = chosen.new_zeros(len(hypotheses.tokens))
        return total.index_add(0, torch.tensor([number for number, _ in places]), chosen)

    def every_log_prob(self) -> Tensor:
        """Return log p (pairs, outputs) of `OUTPUTS`, by the chain rule written out."""
        table = self.logits.log_softmax(-1)
        columns = []
        for tokens in OUTPUTS:
            steps = [
                table[:, position, tokens[position - 1] if position else 0, tokens[position]]
                for position in range(len(tokens))
            ]
            columns.append(torch.stack(steps).sum(0))
        return torch.stack(columns, dim=1)

    def hypothesis_text(self, tokens: Sequence[int]) -> str:
        """Return the words, without the end; no two outputs have the same."""
        return " ".join(WORDS[token] for token in tokens if token)

    def reference_text(self, pair: int) -> str:
        """Return the reference of a pair."""
        return REFERENCES[pair]


def _until_end(tokens: list[int]) -> tuple[int, ...]:
    return tuple(tokens[: tokens.index(0) + 1]) if 0 in tokens else tuple(tokens)
