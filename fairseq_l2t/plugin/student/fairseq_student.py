"""A fairseq translation model as a `unroll.student.Student`.

The student the teacher sees is the student ``fairseq-train`` trains: fairseq's own Trainer builds model, batches,
optimizer and schedule here; only the update itself is ours, so that it can be run back.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from fairseq import tasks, utils
from fairseq.criterions.cross_entropy import CrossEntropyCriterion
from fairseq.data import data_utils
from fairseq.tasks.translation import TranslationTask
from fairseq.trainer import Trainer
from torch import Tensor

from fairseq_l2t.checks.float64 import KeepFloat64
from fairseq_l2t.loss.student_state import StudentState
from fairseq_l2t.plugin.student.data import DevData, TrainBatches
from fairseq_l2t.plugin.student.dev_measures import DevMeasures
from fairseq_l2t.plugin.student.fconv_differences import scaling_of
from fairseq_l2t.plugin.student.initial_weights import load_weights, read_weights
from fairseq_l2t.plugin.student.optimizers import rule_of
from fairseq_l2t.plugin.student.second_derivatives import (
    drop_fast_path,
    fairseq_twice_differentiable,
    refuse_unused_trust,
    refuse_unvouched_fairseq,
)
from fairseq_l2t.plugin.student_options import OptionError, StudentOptions, parse_student_options
from fairseq_l2t.plugin.token_loss import token_loss
from fairseq_l2t.unroll.flat_parameters import FlatParameters
from fairseq_l2t.unroll.student import BatchLoss
from fairseq_l2t.unroll.update_rules import Clipping, StepSize

__all__ = ["FairseqStudent"]

logger = logging.getLogger(__name__)


class FairseqStudent(DevMeasures):
    """A fairseq encoder-decoder under training; see `unroll.student.Student` for what the core asks of it.

    Args:
        options: checked options (`plugin.student_options.parse_student_options`).
        refuse_modules: whether to refuse modules nobody has vouched for; `plugin.doctor.doctor` measures them instead.

    Raises:
        OptionError: what cannot be taught exactly, or data that cannot be used; names option or split.
        NotTwiceDifferentiableError: modules whose second derivatives are not known to be right, by name.
    """

    def __init__(self, options: StudentOptions, *, refuse_modules: bool = True) -> None:
        self.options = options
        self._refuse_modules = refuse_modules
        self._initial_weights = read_weights(options.namespace.student_init)
        self._dtype: torch.dtype | None = None
        self.task = tasks.setup_task(options.cfg.task)
        if not isinstance(self.task, TranslationTask):
            raise OptionError(f"--task: {options.cfg.task._name}; expected translation (or l2t_dlf)")
        self.coefficient_count = len(self.task.target_dictionary)
        self.cross_entropy_updates = options.cross_entropy_updates
        self.state = StudentState(
            self.coefficient_count, options.total_updates, with_bleu=bool(options.cfg.task.eval_bleu)
        )
        self._reached: frozenset[str] | None = None
        model = self._build_model(options.cfg.common.seed)
        self._load_data(model)
        self.restart(options.cfg.common.seed)

    @classmethod
    def from_args(cls, arguments: Sequence[str]) -> FairseqStudent:
        """Return a student for a list of fairseq-train options (and those of `plugin.student_options`), data folder first."""
        return cls(parse_student_options(arguments))

    def double(self) -> FairseqStudent:
        """Do the whole computation in float64 from now on, and start a new life with the same seed."""
        return self.to_dtype(torch.float64)

    def to_dtype(self, dtype: torch.dtype | None) -> FairseqStudent:
        """Compute in ``dtype`` from now on (None: what the options say); a new life with the same seed begins."""
        self._dtype = dtype
        self.restart(self.seed)
        return self

    def restart(self, seed: int) -> None:
        """Begin a new life: parameters, data order and dropout are those of ``fairseq-train --seed``."""
        self.seed = seed
        self.options.cfg.common.seed = seed
        self.model = self._build_model(seed)
        self._trainer = Trainer(
            self.options.cfg, self.task, self.model, CrossEntropyCriterion(self.task, self._sentence_avg)
        )
        if self._dtype is not None:
            self.model.to(self._dtype)
        self.parameters = FlatParameters(self._reached_parameters())
        self.gradient_scaling = scaling_of(self.model, self.parameters)
        is_master = self.parameters.buffer.dtype in (torch.float32, torch.float64)
        self.omega = self.parameters.buffer if is_master else self.parameters.buffer.float()
        self.clipping = Clipping(self.options.cfg.optimization.clip_norm, self.parameters.sizes)
        self.rule = rule_of(self._trainer.optimizer, self.options.cfg.optimizer._name)
        self.buffers = tuple(torch.zeros_like(self.omega) for _ in range(self.rule.buffer_count))
        self.update = 0
        self._previous_lr = float(self.options.cfg.optimization.lr[0])
        self.state.reset()
        self._trainer.lr_step(1)
        self._batches = TrainBatches(self._trainer, self._trainer.lr_step_begin_epoch, self._trainer.lr_step)

    # --- what core asks for -----------------------------------------------------------------------------------

    def next_batch(self) -> list[dict[str, Any]]:
        """Return the micro-batches of the next update."""
        return self._batches.next()

    def step_size(self) -> StepSize:
        """Return the learning rate fairseq's schedule gives the next update."""
        return StepSize(float(self._trainer.get_lr()), self._previous_lr, self.update + 1)

    def losses(self, batch: list[dict], coefficients: Tensor | None, *, measure: bool) -> Iterator[BatchLoss]:
        """Yield the loss of each micro-batch, in train mode."""
        self.model.train()
        padding = self.task.target_dictionary.pad()
        for sample in batch:
            with self._precision():
                result = token_loss(self.model, sample, padding, coefficients, self.options.loss_shape, measure=measure)
                yield BatchLoss(result.total, result.nll, result.correct, int(sample["ntokens"]))

    def sample_size(self, batch: list[dict]) -> float:
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
        """Take the outcome of an update and let fairseq's schedule move on."""
        self._previous_lr = float(self._trainer.get_lr())
        self.set_omega(omega)
        self.buffers = buffers
        self.update += 1
        self._trainer.set_num_updates(self.update)

    @contextmanager
    def replay(self, update: int) -> Iterator[None]:
        """Seed dropout as fairseq's Trainer does before update number ``update`` (``seed + num_updates``)."""
        devices = [self.omega.device] if self.omega.is_cuda else []
        with torch.random.fork_rng(devices):
            utils.set_torch_seed(self.seed + update)
            self.model.set_num_updates(update)
            yield

    def second_derivatives(self) -> AbstractContextManager[None]:
        """See `plugin.student.second_derivatives`."""
        return fairseq_twice_differentiable()

    def few_pairs(self, batch: list[dict], count: int) -> list[dict]:
        """Return ``batch`` with the first ``count`` pairs of each micro-batch, collated anew."""
        dataset = self.task.dataset(self.options.cfg.dataset.train_subset)
        samples = [dataset.collater([dataset[int(index)] for index in part["id"][:count]]) for part in batch]
        return [utils.move_to_cuda(sample) for sample in samples] if self.omega.is_cuda else samples

    # --- interruption -----------------------------------------------------------------------------------------

    def state_dict(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return all that a life consists of: tensors, and values of plain types."""
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
        """Go on with the life `state_dict` described.

        Raises:
            ValueError: it is the life of a student of another size.
        """
        if tensors["omega"].shape != self.omega.shape:
            raise ValueError(f"student: {len(tensors['omega'])} parameters saved, {len(self.omega)} here")
        self.restart(values["seed"])
        self._batches.seek(values["position"])
        self.set_omega(tensors["omega"].to(self.omega))
        self.buffers = tuple(tensors[f"buffer{i}"].to(self.omega) for i in range(len(self.buffers)))
        self.update, self._previous_lr = values["update"], values["previous_lr"]
        self.state.load_state_dict(values["measures"])
        self._trainer.set_num_updates(self.update)

    # --- building ---------------------------------------------------------------------------------------------

    @property
    def _sentence_avg(self) -> bool:
        return bool(self.options.cfg.optimization.sentence_avg)

    @contextmanager
    def _precision(self) -> Iterator[None]:
        """Whatever forward needs: float64 kept, and on a GPU the same attention kernel forward and back."""
        with ExitStack() as stack:
            if self.parameters.buffer.dtype == torch.float64:
                stack.enter_context(KeepFloat64())
            if self.parameters.buffer.is_cuda:
                # Another kernel would draw another dropout mask from the same seed.
                stack.enter_context(fairseq_twice_differentiable())
            yield

    def _build_model(self, seed: int):
        with torch.random.fork_rng([]), data_utils.numpy_seed(seed):
            utils.set_torch_seed(seed)
            try:
                model = self.task.build_model(self.options.cfg.model)
            except AssertionError as error:  # how fairseq's modules refuse sizes
                raise OptionError(f"--arch: {self.options.namespace.arch} with these sizes: {error}") from error
        refuse_unused_trust(model, self.options.namespace.trust_module)
        if self._refuse_modules:
            refuse_unvouched_fairseq(model, self.options.namespace.trust_module)
        if self._initial_weights is not None:
            load_weights(model, self._initial_weights, self.options.namespace.student_init)
        drop_fast_path(model)
        return model

    def _load_data(self, model) -> None:
        cfg, namespace = self.options.cfg, self.options.namespace
        train, valid = cfg.dataset.train_subset, cfg.dataset.valid_subset.split(",")[0]
        if self.task.has_sharded_data(train):
            raise OptionError(f"data: {cfg.task.data}; teacher training takes one data folder")
        for split in (valid, train):
            _refuse_empty(cfg.task.data, split)
        self.task.load_dataset(valid, combine=False, epoch=1)
        self.task.load_dataset(train, combine=False, epoch=1)
        limits = utils.resolve_max_positions(self.task.max_positions(), model.max_positions())
        self.dev = DevData(
            self.task,
            valid,
            limits,
            holdout=namespace.dev_holdout,
            seed=cfg.common.seed,
            allow_overlap=namespace.allow_dev_overlap,
            train_split=train,
        )

    def _reached_parameters(self) -> list[tuple[str, torch.nn.Parameter]]:
        """Return the parameters the loss reaches; the others are left out, by name, in the log."""
        named = [(name, p) for name, p in self.model.named_parameters() if p.requires_grad]
        if self._reached is None:
            self._reached = self._probe(named)
            left_out = [name for name, _ in named if name not in self._reached]
            if left_out:
                logger.info("parameters the loss never reaches, left out: %s", ", ".join(left_out))
        return [(name, p) for name, p in named if name in self._reached]

    def _probe(self, named) -> frozenset[str]:
        sample = self._trainer.get_train_iterator(epoch=1, load_dataset=False, disable_iterator_cache=True).first_batch
        sample = utils.move_to_cuda(sample) if self._trainer.cuda else sample
        devices = [self._trainer.device] if self._trainer.cuda else []
        with torch.random.fork_rng(devices):
            self.model.train()
            try:
                output = self.model(**sample["net_input"])
            except TypeError as error:  # its forward asks for more than source and previous target
                raise OptionError(f"--arch: {self.options.namespace.arch} is no plain translation: {error}") from error
            loss = self.model.get_normalized_probs(output, log_probs=True).sum()
            gradients = torch.autograd.grad(loss, [p for _, p in named], allow_unused=True)
        return frozenset(name for (name, _), g in zip(named, gradients, strict=True) if g is not None)


def _refuse_empty(folder: str, split: str) -> None:
    """Refuse a split without pairs, whose files fairseq cannot map into memory."""
    for path in sorted(Path(folder).glob(f"{split}.*.bin")):
        if path.stat().st_size == 0:
            raise OptionError(f"split {split}: {path} is empty; expected at least one pair, for dev at least 2")
