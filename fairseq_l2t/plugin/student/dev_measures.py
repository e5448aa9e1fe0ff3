"""Measures of a fairseq model on dev pairs: objectives of the teacher, and the dev part of the student's state."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch
from fairseq import utils
from fairseq.models import FairseqEncoderDecoderModel
from fairseq.tasks.translation import TranslationTask
from torch import Tensor

from fairseq_l2t.kernels.twice_differentiable import outer_gradient
from fairseq_l2t.loss.dynamic_loss import LossShape
from fairseq_l2t.objectives import (
    Hypotheses,
    SentenceBleu,
    calibrated_perplexity,
    expected_bleu,
    expected_token_accuracy,
    inverse_perplexity,
)
from fairseq_l2t.plugin.corpus_bleu import corpus_bleu_of_counts
from fairseq_l2t.plugin.student.data import DevData
from fairseq_l2t.plugin.student.precision import forward_precision
from fairseq_l2t.plugin.student.sampling import draw_hypotheses, score_hypotheses
from fairseq_l2t.plugin.student.scored_texts import ScoredTexts
from fairseq_l2t.plugin.student.second_derivatives import fairseq_twice_differentiable
from fairseq_l2t.plugin.token_loss import token_loss
from fairseq_l2t.unroll.flat_parameters import FlatParameters

__all__ = ["OBJECTIVES", "DevMeasures", "DevScores"]

OBJECTIVES = ("likelihood", "inverse-perplexity", "calibrated-perplexity", "expected-bleu")

_SCORES_PER_PASS = 32_000_000
"""Output scores (tokens times vocabulary) in one forward pass: 128 MB of float32, a few times that with its graph."""

_PROBABILITIES_PER_STEP = 4_000_000
"""Next-symbol probabilities (hypotheses times vocabulary) in one step of drawing: 32 MB of float64, and their sums."""

_LENGTH_RATIO, _LENGTH_EXTRA = 1.5, 10
"""Length limit of a drawn hypothesis: 1.5 times the source's tokens plus 10. New students seldom draw an end symbol."""


class DevScores(NamedTuple):
    """Results of fairseq's validation: nll in nats per token, token accuracy in [0, 1], BLEU in [0, 100] or None."""

    loss: float
    accuracy: float
    bleu: float | None


class DevMeasures:
    """Measures of one model on dev pairs, in eval mode and without dropout; implements `objectives.DevStudent`.

    ``reward`` compares texts for ``expected-bleu``. `FairseqStudent.restart` builds a new model and new measures.

    Args:
        task: the translation task of the model, which also validates it.
        model: a fairseq encoder-decoder.
        parameters: the parameters of ``model`` that are trained.
        omega: (n,) their values; gradients have its dtype.
        dev: the dev pairs.
        texts: conversion of sentences to text, and the reward that compares texts.
    """

    def __init__(
        self,
        task: TranslationTask,
        model: FairseqEncoderDecoderModel,
        parameters: FlatParameters,
        omega: Tensor,
        dev: DevData,
        texts: ScoredTexts,
    ) -> None:
        self.omega, self.parameters = omega, parameters
        self._task, self._model, self._dev, self._texts = task, model, dev, texts
        self.reward: SentenceBleu = texts.reward
        self._dictionary = task.target_dictionary
        self._entries = len(task.target_dictionary)

    def objective(
        self, name: str, pairs: Sequence[int], *, samples: int, estimator: str, alpha: float, seed: int
    ) -> tuple[float, Tensor]:
        """Return a measure in [0, 1], to be maximised, and its gradient (n,); see `FairseqStudent.dev_objective`.

        Raises:
            ValueError: an unknown measure or estimator, no pairs, or too few samples.
        """
        if name not in OBJECTIVES:
            raise ValueError(f"--objective: {name}; expected one of {', '.join(OBJECTIVES)}")
        # The gradient of the measure itself: fconv's gradient scaling belongs to its updates only.
        with fairseq_twice_differentiable(), outer_gradient():
            if name == "likelihood":
                found = expected_token_accuracy(self, pairs)
            elif name == "inverse-perplexity":
                found = inverse_perplexity(self, pairs)
            elif name == "calibrated-perplexity":
                found = calibrated_perplexity(self, pairs)
            else:
                found = expected_bleu(
                    self,
                    pairs,
                    reward=self.reward,
                    samples=samples,
                    estimator=estimator,
                    generator=torch.Generator(device=self.omega.device).manual_seed(seed),
                    alpha=alpha,
                )
        return found.value, found.gradient

    def validate(self, pairs: Sequence[int]) -> DevScores:
        """Return the results of fairseq's validation on these pairs."""
        sums: dict[str, float] = {}
        for chunk in self.dev_chunks(pairs):
            with self._precision():
                _, _, logged = self._task.valid_step(self._sample(chunk), self._model, self._validation_loss)
            for key, value in logged.items():
                sums[key] = sums.get(key, 0.0) + float(value)
        tokens = sums["ntokens"]
        return DevScores(sums["nll_loss"] / tokens, sums["n_correct"] / tokens, corpus_bleu_of_counts(sums))

    # --- what objectives ask for ------------------------------------------------------------------------------

    def dev_chunks(self, pairs: Sequence[int]) -> Iterator[list[int]]:
        """Yield ``pairs``, in order, in lists whose output scores stay within a fixed number of elements."""
        chunk: list[int] = []
        longest = 0
        for pair in pairs:
            length = max(longest, self._dev.padded_target_length(pair))
            if chunk and (len(chunk) + 1) * length * self._entries > _SCORES_PER_PASS:
                yield chunk
                chunk, length = [], self._dev.padded_target_length(pair)
            chunk, longest = [*chunk, pair], length
        if chunk:
            yield chunk

    def hypothesis_chunks(self, drawn: Sequence[Sequence[tuple[int, ...]]]) -> Iterator[list[int]]:
        """See `objectives.DevStudent`; pairs with hypotheses of similar length come together."""
        chunk: list[int] = []
        elements = 0
        tokens = [sum(map(len, set(row))) for row in drawn]
        for position in sorted(range(len(drawn)), key=tokens.__getitem__):
            own = tokens[position] * self._entries
            if chunk and elements + own > _SCORES_PER_PASS:
                yield chunk
                chunk, elements = [], 0
            chunk, elements = [*chunk, position], elements + own
        if chunk:
            yield chunk

    def reference_log_probs(self, pairs: Sequence[int], inverse_temperature: float = 1.0) -> tuple[Tensor, Tensor]:
        """See `objectives.DevStudent`; rows are in fairseq's order (by length), which sums do not depend on."""
        log_probs, target, keep = self.reference_distributions(pairs)
        if inverse_temperature != 1.0:
            log_probs = torch.log_softmax(inverse_temperature * log_probs, -1)
        return log_probs.gather(-1, target.unsqueeze(-1)).squeeze(-1), keep

    def reference_distributions(self, pairs: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
        """See `objectives.DevStudent`; rows are in fairseq's order."""
        sample = self._sample(pairs)
        with self._precision():
            output = self._model(**sample["net_input"])
            log_probs = self._model.get_normalized_probs(output, log_probs=True)
        target = sample["target"]
        return log_probs, target, target.ne(self._dictionary.pad())

    def draw(self, pairs: Sequence[int], samples: int, generator: torch.Generator) -> list[list[tuple[int, ...]]]:
        """See `objectives.DevStudent`."""
        at_once = max(1, _PROBABILITIES_PER_STEP // (samples * self._entries))
        rows = []
        for start in range(0, len(pairs), at_once):
            rows += self._draw(pairs[start : start + at_once], samples, generator)
        return rows

    def hypothesis_log_probs(self, pairs: Sequence[int], hypotheses: Hypotheses) -> Tensor:
        """See `objectives.DevStudent`."""
        sample = self._sample(pairs)
        row_of = {pair: row for row, pair in enumerate(sample["id"].tolist())}
        owner = [row_of[pairs[position]] for position in hypotheses.owner]
        with self._precision():
            by_row = Hypotheses(owner, hypotheses.tokens)
            return score_hypotheses(self._model, sample["net_input"], by_row, self._dictionary)

    def hypothesis_text(self, tokens: Sequence[int]) -> str:
        """Return a hypothesis as fairseq's ``--eval-bleu`` scores it: subwords joined, then detokenised."""
        return self._texts.hypothesis(tokens)

    def reference_text(self, pair: int) -> str:
        """Return the reference of a dev pair in the form that fairseq's ``--eval-bleu`` compares with."""
        return self._texts.reference(self._dev.target(pair).tolist())

    def longest_hypothesis(self, pair: int) -> int:
        """Return the number of tokens after which a drawn hypothesis of a dev pair is cut."""
        drawn = int(_LENGTH_RATIO * self._dev.source_length(pair)) + _LENGTH_EXTRA
        return min(drawn, int(self._model.max_decoder_positions()) - 1)

    # --- parts ------------------------------------------------------------------------------------------------

    def _draw(self, pairs: Sequence[int], samples: int, generator: torch.Generator) -> list[list[tuple[int, ...]]]:
        sample = self._sample(pairs)
        longest = [self.longest_hypothesis(pair) for pair in sample["id"].tolist()]
        with self._precision():
            rows = draw_hypotheses(self._model, sample["net_input"], samples, generator, longest, self._dictionary)
        by_pair = dict(zip(sample["id"].tolist(), rows, strict=True))
        return [by_pair[pair] for pair in pairs]

    def _validation_loss(
        self, model: FairseqEncoderDecoderModel, sample: dict[str, Any]
    ) -> tuple[Tensor, int, dict[str, Any]]:
        """Act as a criterion of fairseq: plain nll, as that of `plugin.criterion` in validation."""
        result = token_loss(model, sample, self._dictionary.pad(), None, LossShape())
        logged = {"nll_loss": result.nll, "n_correct": result.correct, "ntokens": sample["ntokens"]}
        return result.total, sample["ntokens"], logged

    def _sample(self, pairs: Sequence[int]) -> dict[str, Any]:
        """Return the batch of some dev pairs on the model's device; the model is in eval mode from here on."""
        self._model.eval()
        sample = self._dev.sample(pairs)
        moved: dict[str, Any] = utils.move_to_cuda(sample) if self.omega.is_cuda else sample
        return moved

    def _precision(self) -> AbstractContextManager[None]:
        return forward_precision(self.parameters.buffer)
