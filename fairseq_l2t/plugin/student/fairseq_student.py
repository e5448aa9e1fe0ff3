"""A fairseq translation model as a `unroll.student.Student`.

The student is the same as in ``fairseq-train``: fairseq's own Trainer builds model, batches, optimizer and schedule.
Only the update itself is ours, because the sweep needs its adjoint.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from fairseq import tasks, utils
from fairseq.criterions.cross_entropy import CrossEntropyCriterion
from fairseq.models import FairseqEncoderDecoderModel
from fairseq.tasks.translation import TranslationTask
from fairseq.trainer import Trainer
from torch import Tensor, nn

from fairseq_l2t.loss.student_state import StudentState
from fairseq_l2t.objectives import SentenceBleu
from fairseq_l2t.plugin.student.data import TrainBatches, load_data
from fairseq_l2t.plugin.student.dev_measures import DevMeasures
from fairseq_l2t.plugin.student.embedding_files import refuse_embeddings
from fairseq_l2t.plugin.student.fconv_differences import FConvScaling, scaling_of
from fairseq_l2t.plugin.student.initial_weights import read_weights
from fairseq_l2t.plugin.student.model import build_model, reached_names
from fairseq_l2t.plugin.student.optimizers import rule_of
from fairseq_l2t.plugin.student.padding_differences import PaddingRows
from fairseq_l2t.plugin.student.precision import forward_precision
from fairseq_l2t.plugin.student.scored_texts import ScoredTexts
from fairseq_l2t.plugin.student.second_derivatives import fairseq_twice_differentiable
from fairseq_l2t.plugin.student_options import OptionError, StudentOptions, parse_student_options
from fairseq_l2t.plugin.token_loss import token_loss
from fairseq_l2t.unroll.flat_parameters import FlatParameters
from fairseq_l2t.unroll.student import BatchLoss
from fairseq_l2t.unroll.update_rules import Clipping, StepSize

__all__ = ["FairseqStudent"]

logger = logging.getLogger(__name__)


class FairseqStudent:
    """A fairseq encoder-decoder under training; it implements `unroll.student.Student`.

    ``dev`` contains the dev pairs (`plugin.student.data.DevData`), ``dev_measures`` the measures of the current model
    on them (`plugin.student.dev_measures.DevMeasures`; `restart` replaces model and measures).

    Args:
        options: checked options (`plugin.student_options.parse_student_options`).
        refuse_modules: whether to refuse modules whose second derivatives are not verified; `plugin.doctor` measures
            them instead.

    Raises:
        OptionError: options without an exact hypergradient, or data that cannot be used; names option or split.
        NotTwiceDifferentiableError: modules whose second derivatives are not verified, by name.
    """

    def __init__(self, options: StudentOptions, *, refuse_modules: bool = True) -> None:
        self.options = options
        self._refuse_modules = refuse_modules
        self._initial_weights = read_weights(options.namespace.student_init)
        self._dtype: torch.dtype | None = None
        self.task = tasks.setup_task(options.cfg.task)
        if not isinstance(self.task, TranslationTask):
            raise OptionError(f"--task: {options.cfg.task._name}; expected translation (or l2t_dlf)")
        refuse_embeddings(options.namespace, self.task)
        self.coefficient_count = len(self.task.target_dictionary)
        self.cross_entropy_updates = options.cross_entropy_updates
        self.state = StudentState(
            self.coefficient_count, options.total_updates, with_bleu=bool(options.cfg.task.eval_bleu)
        )
        self._reached: frozenset[str] | None = None
        self._texts = ScoredTexts(self.task.target_dictionary, options.cfg.task, options.bleu_tokenizer)
        self.model = self._build_model(options.cfg.common.seed)
        self.dev = load_data(self.task, options, self.model)
        self.restart(options.cfg.common.seed)

    @classmethod
    def from_args(cls, arguments: Sequence[str]) -> FairseqStudent:
        """Return a student for options of fairseq-train and of `plugin.student_options`, the data folder first."""
        return cls(parse_student_options(arguments))

    def double(self) -> FairseqStudent:
        """Switch the whole computation to float64, and start a new life with the same seed."""
        return self.to_dtype(torch.float64)

    def to_dtype(self, dtype: torch.dtype | None) -> FairseqStudent:
        """Switch the computation to ``dtype`` (None: that of the options); a new life with the same seed begins."""
        self._dtype = dtype
        self.restart(self.seed)
        return self

    def restart(self, seed: int) -> None:
        """Begin a new life, with the parameters, data order and dropout of ``fairseq-train --seed``."""
        self.seed = seed
        self.options.cfg.common.seed = seed
        self.model = self._build_model(seed)
        self._trainer = Trainer(
            self.options.cfg, self.task, self.model, CrossEntropyCriterion(self.task, self._sentence_avg)
        )
        if self._dtype is not None:
            self.model.to(self._dtype)
        self.parameters = FlatParameters(self._reached_parameters())
        self.gradient_scaling = self._gradient_scaling()
        is_master = self.parameters.buffer.dtype in (torch.float32, torch.float64)
        self.omega = self.parameters.buffer if is_master else self.parameters.buffer.float()
        self.dev_measures = DevMeasures(self.task, self.model, self.parameters, self.omega, self.dev, self._texts)
        self.clipping = Clipping(self.options.cfg.optimization.clip_norm, self.parameters.sizes)
        self.rule = rule_of(self._trainer.optimizer, self.options.cfg.optimizer._name)
        self.buffers = tuple(torch.zeros_like(self.omega) for _ in range(self.rule.buffer_count))
        self.update = 0
        self._previous_lr = float(self.options.cfg.optimization.lr[0])
        self.state.reset()
        self._trainer.lr_step(1)
        self._batches = TrainBatches(self._trainer, self._trainer.lr_step_begin_epoch, self._trainer.lr_step)

    # --- what the engine asks for -----------------------------------------------------------------------------

    def next_batch(self) -> list[dict[str, Any]]:
        """Return the micro-batches of the next update."""
        return self._batches.next()

    def step_size(self) -> StepSize:
        """Return the learning rate of the next update, from fairseq's schedule."""
        return StepSize(float(self._trainer.get_lr()), self._previous_lr, self.update + 1)

    def losses(
        self, batch: Sequence[dict[str, Any]], coefficients: Tensor | None, *, measure: bool
    ) -> Iterator[BatchLoss]:
        """Yield the loss of each micro-batch, in train mode."""
        self.model.train()
        padding = self.task.target_dictionary.pad()
        for sample in batch:
            with self.precision():
                result = token_loss(self.model, sample, padding, coefficients, self.options.loss_shape, measure=measure)
                yield BatchLoss(result.total, result.nll, result.correct, int(sample["ntokens"]))

    def sample_size(self, batch: Sequence[dict[str, Any]]) -> float:
        """Return the target tokens of the batch, or with ``--sentence-avg`` its sentences."""
        return float(
            sum(sample["target"].size(0) if self._sentence_avg else sample["ntokens"] for sample in batch) or 1
        )

    def set_omega(self, omega: Tensor) -> None:
        """Write the parameters (n,)."""
        if self.omega is not self.parameters.buffer:
            self.omega.copy_(omega)
        self.parameters.set(omega)

    def finish_update(self, omega: Tensor, buffers: tuple[Tensor, ...]) -> None:
        """Store the result of an update and advance fairseq's schedule."""
        self._previous_lr = float(self._trainer.get_lr())
        self.set_omega(omega)
        self.buffers = buffers
        self.update += 1
        self._trainer.set_num_updates(self.update)

    @contextmanager
    def replay(self, update: int) -> Iterator[None]:
        """Seed dropout as fairseq's Trainer does before update ``update`` (``seed + num_updates``)."""
        devices = [self.omega.device] if self.omega.is_cuda else []
        with torch.random.fork_rng(devices):
            utils.set_torch_seed(self.seed + update)
            self.model.set_num_updates(update)
            yield

    def second_derivatives(self) -> AbstractContextManager[None]:
        """See `plugin.student.second_derivatives`."""
        return fairseq_twice_differentiable()

    def precision(self) -> AbstractContextManager[None]:
        """Return the context for every forward pass of the model; see `plugin.student.precision`."""
        return forward_precision(self.parameters.buffer)

    # --- measures on dev --------------------------------------------------------------------------------------

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
            ValueError: an unknown measure or estimator, or too few samples.
        """
        chosen = self.dev.teaching[: self.options.namespace.dev_batch] if pairs is None else pairs
        return self.dev_measures.objective(
            name, list(chosen), samples=samples, estimator=estimator, alpha=alpha, seed=seed
        )

    def observe_dev(self, pairs: Sequence[int]) -> None:
        """Update the dev measures of the state, as fairseq's validation on these pairs would."""
        self.state.observe_dev(*self.dev_measures.validate(pairs))

    def reward(self) -> SentenceBleu:
        """Return the reward of ``expected-bleu``, the same object in every life."""
        return self.dev_measures.reward

    # --- interruption -----------------------------------------------------------------------------------------

    def state_dict(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the state of a life: tensors, and values of plain types."""
        tensors = {"omega": self.omega, **{f"buffer{i}": buffer for i, buffer in enumerate(self.buffers)}}
        values = {
            "seed": self.seed,
            "update": self.update,
            "previous_lr": self._previous_lr,
            "position": self._batches.position(),
            "measures": self.state.state_dict(),
        }
        return tensors, values

    def load_state_dict(self, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        """Continue the life from the result of `state_dict`.

        Raises:
            ValueError: the life is that of a student of another size, or of other data.
        """
        if tensors["omega"].shape != self.omega.shape:
            raise ValueError(f"student: {len(tensors['omega'])} parameters saved, {len(self.omega)} here")
        self.restart(values["seed"])
        position = values["position"]
        if self.options.own.allow_other_data:  # the epochs of other data may be shorter
            position = {
                **position,
                "iterations_in_epoch": min(position["iterations_in_epoch"], self._batches.per_epoch),
            }
        self._batches.seek(position)
        self.set_omega(tensors["omega"].to(self.omega))
        self.buffers = tuple(tensors[f"buffer{i}"].to(self.omega) for i in range(len(self.buffers)))
        self.update, self._previous_lr = values["update"], values["previous_lr"]
        self.state.load_state_dict(values["measures"])
        self._trainer.set_num_updates(self.update)

    # --- building ---------------------------------------------------------------------------------------------

    @property
    def _sentence_avg(self) -> bool:
        return bool(self.options.cfg.optimization.sentence_avg)

    def _build_model(self, seed: int) -> FairseqEncoderDecoderModel:
        return build_model(
            self.task, self.options, seed, weights=self._initial_weights, refuse_modules=self._refuse_modules
        )

    def _gradient_scaling(self) -> FConvScaling | PaddingRows | None:
        scaling = scaling_of(self.model, self.parameters)
        # Where targets are padded on the right, no position that counts reads the padding row.
        is_read = self.options.cfg.task.left_pad_target
        return PaddingRows(self.model, self.parameters, scaling) if is_read else scaling

    def _reached_parameters(self) -> list[tuple[str, nn.Parameter]]:
        """Return the parameters with a gradient; log the names of the others, which are left out."""
        named = [(name, p) for name, p in self.model.named_parameters() if p.requires_grad]
        if self._reached is None:
            batches = self._trainer.get_train_iterator(epoch=1, load_dataset=False, disable_iterator_cache=True)
            sample = utils.move_to_cuda(batches.first_batch) if self._trainer.cuda else batches.first_batch
            self._reached = reached_names(self.model, named, sample, self.options.namespace.arch)
            left_out = [name for name, _ in named if name not in self._reached]
            if left_out:
                logger.info("parameters without a gradient, left out: %s", ", ".join(left_out))
        return [(name, p) for name, p in named if name in self._reached]
