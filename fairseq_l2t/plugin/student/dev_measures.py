"""Measures of a fairseq student on dev pairs: objectives for the teacher, and the dev part of the student's state."""

from __future__ import annotations

import functools
import json
from argparse import Namespace
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from fairseq import utils
from fairseq.data import encoders
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
from fairseq_l2t.plugin.frozen_teacher import corpus_bleu_of_counts
from fairseq_l2t.plugin.student.sampling import draw_hypotheses, score_hypotheses
from fairseq_l2t.plugin.token_loss import token_loss

__all__ = ["OBJECTIVES", "DevMeasures"]

OBJECTIVES = ("likelihood", "inverse-perplexity", "calibrated-perplexity", "expected-bleu")

_ELEMENTS_AT_ONCE = 32_000_000
"""Output scores (tokens times vocabulary) in one forward pass: 128 MB of float32, a few times that with its graph."""

_DRAWN_AT_ONCE = 4_000_000
"""Next-symbol probabilities (hypotheses times vocabulary) in a step of drawing: 32 MB of float64, and its sums."""

_LENGTH_RATIO, _LENGTH_EXTRA = 1.5, 10
"""A drawn hypothesis is cut after 1.5 times the source's tokens plus 10: early students seldom end by themselves."""


class DevMeasures:
    """The part of `FairseqStudent` that looks at dev pairs. Everything is in eval mode, without dropout."""

    def dev_objective(
        self,
        name: str = "likelihood",
        *,
        pairs: Sequence[int] | None = None,
        samples: int = 16,
        estimator: str = "reinforce",
        alpha: float = 1.0,
        seed: int = 0,
    ) -> tuple[float, Tensor]:
        """Return a measure in [0, 1], to be maximised, and its gradient (n,) at omega.

        Args:
            name: ``likelihood`` (expected token accuracy), ``inverse-perplexity``, ``calibrated-perplexity`` (the same
                at the student's best temperature) or ``expected-bleu``.
            pairs: numbers of dev pairs (default: the first ``--dev-batch`` of those that train the teacher).
            samples, estimator, alpha: see `objectives.expected_bleu`.
            seed: seed of the draws of ``expected-bleu``.

        Raises:
            ValueError: an unknown measure or estimator, too few samples.
        """
        pairs = list(self.dev.teaching[: self.options.namespace.dev_batch] if pairs is None else pairs)
        if name not in OBJECTIVES:
            raise ValueError(f"--objective: {name}; expected one of {', '.join(OBJECTIVES)}")
        # The measure's own gradient: fconv scales the one into its encoder, which is a matter of its updates only.
        with self.second_derivatives(), outer_gradient():
            if name == "likelihood":
                objective = expected_token_accuracy(self, pairs)
            elif name == "inverse-perplexity":
                objective = inverse_perplexity(self, pairs)
            elif name == "calibrated-perplexity":
                objective = calibrated_perplexity(self, pairs)
            else:
                generator = torch.Generator(device=self.omega.device).manual_seed(seed)
                objective = expected_bleu(
                    self,
                    pairs,
                    reward=self.reward(),
                    samples=samples,
                    estimator=estimator,
                    generator=generator,
                    alpha=alpha,
                )
        return objective.value, objective.gradient

    def observe_dev(self, pairs: Sequence[int]) -> None:
        """Bring the dev measures of the state up to date, as fairseq's validation on these pairs would."""
        sums: dict[str, float] = {}
        for chunk in self.dev_chunks(pairs):
            with self._precision():
                _, _, logged = self.task.valid_step(self._dev_sample(chunk), self.model, self._validation_loss)
            for key, value in logged.items():
                sums[key] = sums.get(key, 0.0) + float(value)
        tokens = sums["ntokens"]
        self.state.observe_dev(sums["nll_loss"] / tokens, sums["n_correct"] / tokens, corpus_bleu_of_counts(sums))

    # --- what objectives ask for ------------------------------------------------------------------------------

    def dev_chunks(self, pairs: Sequence[int]) -> Iterator[list[int]]:
        """Yield ``pairs``, in order, in lists whose output scores stay within a fixed number of elements."""
        chunk: list[int] = []
        longest = 0
        for pair in pairs:
            length = max(longest, len(self.dev.target(pair)))
            if chunk and (len(chunk) + 1) * length * self.coefficient_count > _ELEMENTS_AT_ONCE:
                yield chunk
                chunk, length = [], len(self.dev.target(pair))
            chunk, longest = [*chunk, pair], length
        if chunk:
            yield chunk

    def hypothesis_chunks(self, drawn: Sequence[Sequence[tuple[int, ...]]]) -> Iterator[list[int]]:
        """See `objectives.DevStudent`; pairs with hypotheses of similar length come together."""
        chunk: list[int] = []
        elements = 0
        tokens = [sum(map(len, set(row))) for row in drawn]
        for position in sorted(range(len(drawn)), key=tokens.__getitem__):
            own = tokens[position] * self.coefficient_count
            if chunk and elements + own > _ELEMENTS_AT_ONCE:
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
        sample = self._dev_sample(pairs)
        with self._precision():
            output = self.model(**sample["net_input"])
            log_probs = self.model.get_normalized_probs(output, log_probs=True)
        target = sample["target"]
        return log_probs, target, target.ne(self.task.target_dictionary.pad())

    def draw(self, pairs: Sequence[int], samples: int, generator: torch.Generator) -> list[list[tuple[int, ...]]]:
        """See `objectives.DevStudent`."""
        at_once = max(1, _DRAWN_AT_ONCE // (samples * self.coefficient_count))
        rows = []
        for start in range(0, len(pairs), at_once):
            rows += self._draw(pairs[start : start + at_once], samples, generator)
        return rows

    def _draw(self, pairs: Sequence[int], samples: int, generator: torch.Generator) -> list[list[tuple[int, ...]]]:
        sample = self._dev_sample(pairs)
        longest = [self._max_length(pair) for pair in sample["id"].tolist()]
        with self._precision():
            rows = draw_hypotheses(
                self.model, sample["net_input"], samples, generator, longest, self.task.target_dictionary
            )
        by_pair = dict(zip(sample["id"].tolist(), rows, strict=True))
        return [by_pair[pair] for pair in pairs]

    def hypothesis_log_probs(self, pairs: Sequence[int], hypotheses: Hypotheses) -> Tensor:
        """See `objectives.DevStudent`."""
        sample = self._dev_sample(pairs)
        row_of = {pair: row for row, pair in enumerate(sample["id"].tolist())}
        owner = [row_of[pairs[position]] for position in hypotheses.owner]
        with self._precision():
            return score_hypotheses(
                self.model,
                sample["net_input"],
                Hypotheses(owner, hypotheses.tokens),
                self.task.target_dictionary,
            )

    def hypothesis_text(self, tokens: Sequence[int]) -> str:
        """Return text as fairseq's ``--eval-bleu`` scores it: subwords joined, then detokenised."""
        return self._text(tokens, "UNKNOWNTOKENINHYP")

    def reference_text(self, pair: int) -> str:
        """Return the reference as fairseq's ``--eval-bleu`` compares with."""
        return self._text(self.dev.target(pair).tolist(), "UNKNOWNTOKENINREF")

    def reward(self) -> SentenceBleu:
        """Return sentence BLEU on detokenised text, or as it is with ``--eval-tokenized-bleu``."""
        return self._reward

    @functools.cached_property
    def _reward(self) -> SentenceBleu:
        return SentenceBleu("none" if self.options.cfg.task.eval_tokenized_bleu else "13a")

    def _validation_loss(self, model, sample: dict[str, Any]):
        """A criterion in fairseq's sense: plain nll, as `plugin.criterion` gives it in validation."""
        result = token_loss(model, sample, self.task.target_dictionary.pad(), None, LossShape())
        logged = {"nll_loss": result.nll, "n_correct": result.correct, "ntokens": sample["ntokens"]}
        return result.total, sample["ntokens"], logged

    def _text(self, tokens: Sequence[int], unknown: str) -> str:
        text = self.task.target_dictionary.string(tokens, self._subword_mark, unk_string=unknown)
        return self._tokenizer.decode(text) if self._tokenizer is not None else text

    # Looked up once: fairseq's options take longer to be asked than a hypothesis to be put into words.

    @functools.cached_property
    def _subword_mark(self) -> str | None:
        return self.options.cfg.task.eval_bleu_remove_bpe

    @functools.cached_property
    def _tokenizer(self):
        options = self.options.cfg.task
        arguments = json.loads(options.eval_bleu_detok_args)
        return encoders.build_tokenizer(Namespace(tokenizer=options.eval_bleu_detok, **arguments))

    def _max_length(self, pair: int) -> int:
        drawn = int(_LENGTH_RATIO * self.dev.source_length(pair)) + _LENGTH_EXTRA
        return min(drawn, self.model.max_decoder_positions() - 1)

    def _dev_sample(self, pairs: Sequence[int]) -> dict[str, Any]:
        self.model.eval()
        sample = self.dev.sample(pairs)
        return utils.move_to_cuda(sample) if self.omega.is_cuda else sample
