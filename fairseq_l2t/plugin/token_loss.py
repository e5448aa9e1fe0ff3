"""Loss and measures of one micro-batch, from the output of a fairseq model.

`plugin.criterion` (students of ``fairseq-train``) and `plugin.student` (students of the unroll) share it, so that both
make the same updates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from fairseq.models import BaseFairseqModel, FairseqDecoder
from fairseq.models.transformer import TransformerModelBase
from torch import Tensor

from fairseq_l2t.kernels.target_log_probs import target_log_probs
from fairseq_l2t.kernels.twice_differentiable import uses_fused_nodes
from fairseq_l2t.loss.dynamic_loss import LossShape, dynamic_loss

__all__ = ["TokenLoss", "token_loss"]


@dataclass(frozen=True)
class TokenLoss:
    """Sums over the target tokens of a micro-batch.

    Args:
        total: the loss, a differentiable scalar.
        nll: negative log-likelihood in nats, a detached scalar.
        correct: number of target tokens that are the most probable one, a scalar; None if not measured.
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
    """Run ``model`` on ``sample`` and return its loss.

    Args:
        model: a fairseq encoder-decoder.
        sample: a batch of fairseq's LanguagePairDataset; ``target`` (batch, length).
        padding: index of the padding symbol, whose positions are ignored.
        coefficients: Phi_t (entries,), or smoothed (entries + 1,), differentiable; None: plain cross-entropy.
        shape: scale and cross-entropy share of the dynamic loss.
        measure: whether to count correct tokens.

    Raises:
        ValueError: coefficients of another vocabulary.
    """
    output = model(**sample["net_input"])
    target = model.get_targets(sample, output)
    keep = target.ne(padding)
    if _is_softmax(model) and (coefficients is not None or uses_fused_nodes()):
        scores = output[0].float()  # as fairseq's own log_softmax does
        of_targets = target_log_probs(scores, target)
    else:
        # Plain cross-entropy is to the bit what fairseq's own criterion computes.
        scores = model.get_normalized_probs(output, log_probs=True)
        of_targets = scores.gather(-1, target.unsqueeze(-1)).squeeze(-1)
    nll = -of_targets.masked_fill(~keep, 0.0).sum()
    if coefficients is None:
        total = nll
    else:
        means = _mean_log_probs(scores, target, of_targets) if _is_smoothed(coefficients, scores) else None
        total = dynamic_loss(of_targets, target, coefficients, keep, shape, means)
    correct = _count_correct(scores, target, keep) if measure else None
    return TokenLoss(total, nll.detach(), correct)


_OWN_NORMALIZERS = (BaseFairseqModel.get_normalized_probs, TransformerModelBase.get_normalized_probs)


def _is_softmax(model: Any) -> bool:
    """Return whether the probabilities of ``model`` are the softmax of its first output, by fairseq's own methods."""
    decoder = getattr(model, "decoder", None)
    methods: list[tuple[object, str, tuple[object, ...]]] = [(model, "get_normalized_probs", _OWN_NORMALIZERS)]
    methods += [(model, "get_normalized_probs_scriptable", (BaseFairseqModel.get_normalized_probs_scriptable,))]
    for name in ("get_normalized_probs", "get_normalized_probs_scriptable"):
        methods.append((decoder, name, (getattr(FairseqDecoder, name),)))
    own = all(getattr(getattr(part, name, None), "__func__", None) in known for part, name, known in methods)
    return own and getattr(decoder, "adaptive_softmax", None) is None


def _is_smoothed(coefficients: Tensor, scores: Tensor) -> bool:
    words, given = scores.shape[-1], coefficients.numel()
    if given not in (words, words + 1):
        raise ValueError(f"coefficients: {given}; expected {words} for so many words, or one more where smoothed")
    return given > words


def _mean_log_probs(scores: Tensor, target: Tensor, of_targets: Tensor) -> Tensor:
    """Return the mean of ``log p`` over all words, (batch, length), for ``scores`` that are it up to a constant."""
    # The constant is known from the target: a second normalizer would be a second pass of exponentials.
    return scores.mean(-1) - (scores.gather(-1, target.unsqueeze(-1)).squeeze(-1) - of_targets)


@torch.no_grad()
def _count_correct(scores: Tensor, target: Tensor, keep: Tensor) -> Tensor:
    # A comparison with the largest score is several times cheaper than asking for its place.
    of_targets = scores.gather(-1, target.unsqueeze(-1)).squeeze(-1)
    return (of_targets.eq(scores.amax(-1)) & keep).sum()
