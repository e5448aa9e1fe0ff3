"""Drawing hypotheses from a fairseq model, and scoring them, in batches.

fairseq's SequenceGenerator with ``--sampling`` forbids the end of sentence at the first step and forces it at the
last, so that what it draws is not distributed as p; an unbiased estimator needs draws from p itself. Only the
padding symbol is excluded, from draws and scores alike.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fairseq_l2t.objectives import Hypotheses

__all__ = ["draw_hypotheses", "score_hypotheses"]


@torch.no_grad()
def draw_hypotheses(
    model, net_input: dict[str, Tensor], samples: int, generator: torch.Generator, max_length: int, dictionary
) -> list[list[tuple[int, ...]]]:
    """Return ``samples`` hypotheses for each source, by incremental decoding of all at once.

    Args:
        model: a fairseq encoder-decoder in eval mode.
        net_input: ``src_tokens`` (batch, length) and ``src_lengths`` (batch,).
        samples: hypotheses for each source.
        generator: source of the draws.
        max_length: a hypothesis that has not ended after so many tokens is cut there, without end symbol.
        dictionary: the target dictionary.
    """
    sources = net_input["src_tokens"].shape[0]
    encoded = _encode(model, net_input, torch.arange(sources).repeat_interleave(samples))
    end, padding = dictionary.eos(), dictionary.pad()
    prefix = net_input["src_tokens"].new_full((sources * samples, 1), end)
    ended = torch.zeros(sources * samples, dtype=torch.bool, device=prefix.device)
    incremental_state: dict = {}
    for _ in range(max_length):
        output = model.decoder(prefix, encoder_out=encoded, incremental_state=incremental_state)
        probs = model.get_normalized_probs((output[0][:, -1:, :], None), log_probs=False)[:, -1]
        probs[:, padding] = 0.0
        token = torch.multinomial(probs, 1, generator=generator)
        # An ended row goes on with end symbols, which are cut off below: no padding enters the decoder.
        token[ended] = end
        prefix = torch.cat([prefix, token], dim=1)
        ended |= token.squeeze(1).eq(end)
        if bool(ended.all()):
            break
    rows = [_until_end(row, end) for row in prefix[:, 1:].tolist()]
    return [rows[i * samples : (i + 1) * samples] for i in range(sources)]


def score_hypotheses(model, net_input: dict[str, Tensor], hypotheses: Hypotheses, dictionary) -> Tensor:
    """Return the log-probability (hypotheses,) of each, differentiable; every source is encoded once."""
    device = net_input["src_tokens"].device
    encoded = _encode(model, net_input, torch.tensor(hypotheses.owner))
    target = _padded(hypotheses.tokens, dictionary.pad()).to(device)
    prefix = torch.cat([target.new_full((target.shape[0], 1), dictionary.eos()), target[:, :-1]], dim=1)
    log_probs = model.get_normalized_probs(model.decoder(prefix, encoder_out=encoded), log_probs=True)
    # log of the probability of any symbol but padding, by which every choice is renormalised
    remaining = torch.log1p(-log_probs[..., dictionary.pad()].exp())
    chosen = log_probs.gather(-1, target.unsqueeze(-1)).squeeze(-1) - remaining
    return chosen.masked_fill(target.eq(dictionary.pad()), 0.0).sum(dim=1)


def _encode(model, net_input: dict[str, Tensor], order: Tensor):
    encoded = model.encoder(net_input["src_tokens"], src_lengths=net_input["src_lengths"])
    return model.encoder.reorder_encoder_out(encoded, order.to(net_input["src_tokens"].device))


def _until_end(tokens: list[int], end: int) -> tuple[int, ...]:
    return tuple(tokens[: tokens.index(end) + 1]) if end in tokens else tuple(tokens)


def _padded(rows: Sequence[tuple[int, ...]], padding: int) -> Tensor:
    longest = max(len(row) for row in rows)
    return torch.tensor([[*row, *[padding] * (longest - len(row))] for row in rows])
