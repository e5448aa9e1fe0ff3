"""Drawing hypotheses from a fairseq model, and scoring them, in batches.

fairseq's SequenceGenerator with ``--sampling`` forbids the end of sentence at the first step and forces it at the last,
so its draws are not distributed as p. An unbiased estimator needs draws from p itself. Here only the padding symbol is
excluded, from draws and scores alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from fairseq.data import Dictionary
from fairseq.models import FairseqEncoderDecoderModel
from torch import Tensor

from fairseq_l2t.objectives import Hypotheses
from fairseq_l2t.unroll.student import NonFiniteError

__all__ = ["draw_hypotheses", "score_hypotheses"]

_Encoded = Any
"""Output of a fairseq encoder: a tuple or a dictionary of tensors, depending on the architecture."""

_UNFINISHED_SHARE = 0.9
"""Share of unfinished rows below which finished rows are removed: a step costs more than copying its state."""

_LENGTH_SHARE, _FEW_ROWS, _LENGTH_SHARE_OF_FEW_ROWS = 0.8, 64, 0.25
"""A scored batch takes hypotheses of at least 0.8 of its longest; while it has fewer than 64 rows, of at least a
quarter: a forward pass has a fixed cost, about that of 64 rows (measured for the students of benchmarks/objective.py).
Padding then takes at most 3 times the memory of the tokens."""


@torch.no_grad()
def draw_hypotheses(
    model: FairseqEncoderDecoderModel,
    net_input: dict[str, Tensor],
    samples: int,
    generator: torch.Generator,
    longest: Sequence[int],
    dictionary: Dictionary,
) -> list[list[tuple[int, ...]]]:
    """Return ``samples`` hypotheses for each source, by incremental decoding of all at once.

    Each step of each hypothesis has its own random number, so that a draw depends on the other hypotheses only
    through rounding, which differs between batch sizes.

    Args:
        model: a fairseq encoder-decoder in eval mode.
        net_input: ``src_tokens`` (batch, length) and ``src_lengths`` (batch,).
        samples: hypotheses for each source.
        generator: source of the draws; ``max(longest) * batch * samples`` float64 numbers are taken from it.
        longest: for each source, the tokens after which a hypothesis that has not ended is cut, without end symbol.
        dictionary: the target dictionary.

    Raises:
        NonFiniteError: probabilities that are not finite.
    """
    device, end = net_input["src_tokens"].device, dictionary.eos()
    rows = torch.arange(len(longest), device=device).repeat_interleave(samples)
    encoded = _encode(model, net_input, rows)
    limits = torch.tensor(longest, device=device)[rows]
    numbers = torch.rand(max(longest), len(rows), generator=generator, device=device, dtype=torch.float64)
    # Rows begin with the end symbol, as fairseq's targets do; positions that are never written keep it.
    drawn = torch.full((len(rows), max(longest) + 1), end, device=device)
    active = torch.arange(len(rows), device=device)
    incremental_state: dict[str, dict[str, Tensor | None]] = {}
    unfinished = limits > 0
    for step in range(max(longest)):
        keep = unfinished[active].nonzero().squeeze(1)
        if len(keep) == 0:
            break
        if len(keep) < _UNFINISHED_SHARE * len(active):
            active = active[keep]
            encoded = model.encoder.reorder_encoder_out(encoded, keep)
            model.decoder.reorder_incremental_state_scripting(incremental_state, keep)
        output = model.decoder(drawn[active, : step + 1], encoder_out=encoded, incremental_state=incremental_state)
        probs = model.get_normalized_probs((output[0][:, -1:, :], None), log_probs=False)[:, -1]
        token = _choose(probs, numbers[step, active], dictionary.pad())
        # A finished row that is still in the batch continues with end symbols, which are cut off below.
        drawn[active, step + 1] = token.masked_fill(~unfinished[active], end)
        unfinished[active] &= token.ne(end) & (limits[active] > step + 1)
    pairs = zip(drawn[:, 1:].tolist(), limits.tolist(), strict=True)
    hypotheses = [_until_end(row[:limit], end) for row, limit in pairs]
    return [hypotheses[i * samples : (i + 1) * samples] for i in range(len(longest))]


def score_hypotheses(
    model: FairseqEncoderDecoderModel, net_input: dict[str, Tensor], hypotheses: Hypotheses, dictionary: Dictionary
) -> Tensor:
    """Return the log-probability (hypotheses,) of each, differentiable; every source is encoded once.

    Args:
        model: a fairseq encoder-decoder in eval mode.
        net_input: ``src_tokens`` (batch, length) and ``src_lengths`` (batch,).
        hypotheses: each with the row of its source as owner.
        dictionary: the target dictionary.
    """
    encoded = model.encoder(net_input["src_tokens"], src_lengths=net_input["src_lengths"])
    order: list[int] = []
    scores: list[Tensor] = []
    for batch in _of_similar_length(hypotheses.tokens):
        owner = torch.tensor([hypotheses.owner[number] for number in batch], device=net_input["src_tokens"].device)
        # A copy, because fconv's reordering writes into the dictionary it is given.
        own = model.encoder.reorder_encoder_out(dict(encoded) if isinstance(encoded, dict) else encoded, owner)
        scores.append(_score(model, own, [hypotheses.tokens[number] for number in batch], dictionary))
        order += batch
    place = torch.tensor(order, device=scores[0].device).argsort()
    return torch.cat(scores).index_select(0, place)


def _score(
    model: FairseqEncoderDecoderModel, encoded: _Encoded, tokens: Sequence[tuple[int, ...]], dictionary: Dictionary
) -> Tensor:
    """Return the log-probability (hypotheses,) of each; each encoded source is one row."""
    padding = dictionary.pad()
    target = _padded(tokens, padding).to(next(model.parameters()).device)
    prefix = torch.cat([target.new_full((target.shape[0], 1), dictionary.eos()), target[:, :-1]], dim=1)
    log_probs: Tensor = model.get_normalized_probs(model.decoder(prefix, encoder_out=encoded), log_probs=True)
    # One gather for both, since its backward pass writes a tensor as large as all output scores.
    chosen, excluded = log_probs.gather(-1, torch.stack([target, torch.full_like(target, padding)], -1)).unbind(-1)
    # log of the probability of any symbol but padding, by which every choice is renormalised
    remaining = torch.log1p(-excluded.exp())
    return (chosen - remaining).masked_fill(target.eq(padding), 0.0).sum(dim=1)


def _of_similar_length(tokens: Sequence[tuple[int, ...]]) -> Iterator[list[int]]:
    """Yield the numbers of all hypotheses in lists, longest first, within which little padding is needed."""
    batch: list[int] = []
    for number in sorted(range(len(tokens)), key=lambda number: -len(tokens[number])):
        share = _LENGTH_SHARE_OF_FEW_ROWS if len(batch) < _FEW_ROWS else _LENGTH_SHARE
        if batch and len(tokens[number]) < share * len(tokens[batch[0]]):
            yield batch
            batch = []
        batch.append(number)
    if batch:
        yield batch


def _choose(probs: Tensor, numbers: Tensor, padding: int) -> Tensor:
    """Return one symbol (rows,) for each row of ``probs`` (rows, entries), by inverting its cumulative sum.

    In float64, so that 53 random bits decide and no rare symbol is lost to rounding. ``1 - numbers`` is in (0, 1]:
    the first sum that reaches it belongs to a symbol of positive probability.

    Args:
        probs: probabilities (rows, entries), which need not sum to 1.
        numbers: uniform in [0, 1), (rows,).
        padding: index of the symbol that is never chosen.

    Raises:
        NonFiniteError: probabilities that are not finite.
    """
    cumulative = probs.double()
    cumulative[:, padding] = 0.0
    cumulative = cumulative.cumsum(1)
    total = cumulative[:, -1:]
    if not bool(total.isfinite().all()):
        raise NonFiniteError("drawing hypotheses: the student's probabilities are not finite")
    return torch.searchsorted(cumulative, (1 - numbers).unsqueeze(1) * total).squeeze(1)


def _encode(model: FairseqEncoderDecoderModel, net_input: dict[str, Tensor], order: Tensor) -> _Encoded:
    """Return the encoder output of the sources, its rows in ``order`` (rows,)."""
    encoded = model.encoder(net_input["src_tokens"], src_lengths=net_input["src_lengths"])
    return model.encoder.reorder_encoder_out(encoded, order)


def _until_end(tokens: list[int], end: int) -> tuple[int, ...]:
    return tuple(tokens[: tokens.index(end) + 1]) if end in tokens else tuple(tokens)


def _padded(rows: Sequence[tuple[int, ...]], padding: int) -> Tensor:
    longest = max(len(row) for row in rows)
    return torch.tensor([[*row, *[padding] * (longest - len(row))] for row in rows])
