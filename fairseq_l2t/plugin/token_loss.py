"""From a fairseq model's output to the loss and the measures of one micro-batch.

One function for `criterion` (students under ``fairseq-train``) and `fairseq_student` (students under the unroll):
the student the teacher sees is the student fairseq trains.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fairseq_l2t.core import LossShape, dynamic_loss

__all__ = ["TokenLoss", "token_loss"]


@dataclass(frozen=True)
class TokenLoss:
    """Sums over the target tokens of a micro-batch.

    ``total``: the loss, a differentiable scalar; ``nll``: negative log-likelihood in nats, detached; ``correct``:
    number of tokens that are the model's first choice (a tensor), None where not measured.
    """

    total: Tensor
    nll: Tensor
    correct: Tensor | None


def token_loss(
    model: Any,
    sample: dict[str, Any],
    padding: int,
    coefficients: Tensor | None,
    shape: LossShape,
    *,
    measure: bool = True,
) -> TokenLoss:
    """Run ``model`` on ``sample`` and return its loss under ``coefficients`` (entries,); None: cross-entropy.

    Args:
        model: a fairseq encoder-decoder.
        sample: a batch of fairseq's LanguagePairDataset; ``target`` (batch, length).
        padding: index of the padding symbol, whose positions count for nothing.
        coefficients: Phi_t, differentiable, or None.
        shape: scale and cross-entropy share of the dynamic loss.
        measure: whether to count correct tokens.
    """
    output = model(**sample["net_input"])
    log_probs = model.get_normalized_probs(output, log_probs=True)
    target = model.get_targets(sample, output)
    keep = target.ne(padding)
    target_log_probs = log_probs.gather(-1, target.unsqueeze(-1)).squeeze(-1)
    nll = -target_log_probs.masked_fill(~keep, 0.0).sum()
    total = nll if coefficients is None else dynamic_loss(target_log_probs, target, coefficients, keep, shape)
    correct = _count_correct(log_probs, target, keep) if measure else None
    return TokenLoss(total, nll.detach(), correct)


@torch.no_grad()
def _count_correct(log_probs: Tensor, target: Tensor, keep: Tensor) -> Tensor:
    return (log_probs.argmax(-1).eq(target) & keep).sum()
