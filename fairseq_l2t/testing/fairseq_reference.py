"""The reference run: K updates by fairseq's own Trainer, put together as ``fairseq-train`` does it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from fairseq import checkpoint_utils, options, tasks, utils
from fairseq.data import iterators
from fairseq.dataclass.utils import convert_namespace_to_omegaconf
from fairseq.trainer import Trainer
from fairseq_cli.train import validate
from omegaconf import DictConfig
from torch import Tensor, nn

from fairseq_l2t.checks.float64 import KeepFloat64


class KeepNorms(KeepFloat64):
    """Also compute norms in float64: fairseq asks for float32, which PyTorch refuses for float64 gradients."""

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: tuple[type, ...],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call ``function`` without the ``dtype`` of a norm."""
        if function is torch.norm and args[0].dtype == torch.float64:
            kwargs = {name: value for name, value in (kwargs or {}).items() if name != "dtype"}
        return super().__torch_function__(function, types, args, kwargs)


@dataclass
class FairseqRun:
    """A run of K updates.

    Args:
        task, trainer: fairseq's.
        start, end: parameters by name before the first and after the last update.
        batches: for each update, the example numbers of its micro-batches.
        rates: learning rate of each update.
        coefficients: Phi_t (coefficients,) of each update; None under cross-entropy.
        epochs: number of epochs the updates took.
    """

    task: Any
    trainer: Trainer
    start: dict[str, Tensor] = field(default_factory=dict)
    end: dict[str, Tensor] = field(default_factory=dict)
    batches: list[list[list[int]]] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    coefficients: list[Tensor | None] = field(default_factory=list)
    epochs: int = 1


def configuration(arguments: Sequence[str]) -> DictConfig:
    """Return fairseq's configuration of a ``fairseq-train`` command line."""
    parser = options.get_training_parser()
    cfg: DictConfig = convert_namespace_to_omegaconf(options.parse_args_and_arch(parser, input_args=arguments))
    return cfg


def parameters_of(model: nn.Module) -> dict[str, Tensor]:
    """Return copies of the parameters by name."""
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def run_fairseq(arguments: Sequence[str], updates: int, *, double: bool, validate_after: int = 0) -> FairseqRun:
    """Make the updates of ``fairseq-train`` with ``arguments``.

    Args:
        arguments: a command line of ``fairseq-train``.
        updates: number K of updates.
        double: compute in float64; fairseq's casts of tensors to float32 are undone.
        validate_after: the update after which to validate once; 0: never.
    """
    cfg = configuration(arguments)
    with torch.random.fork_rng(), KeepNorms() if double else nullcontext():
        np.random.seed(cfg.common.seed)
        utils.set_torch_seed(cfg.common.seed)
        task = tasks.setup_task(cfg.task)
        model = task.build_model(cfg.model)
        model = model.double() if double else model
        criterion = task.build_criterion(cfg.criterion)
        task.load_dataset("valid", combine=False, epoch=1)
        trainer = Trainer(cfg, task, model, criterion)
        run = FairseqRun(task, trainer, start=parameters_of(model))
        _, epoch_itr = checkpoint_utils.load_checkpoint(cfg.checkpoint, trainer)
        while len(run.batches) < updates:
            _run_epoch(cfg, run, epoch_itr, updates, validate_after)
            if len(run.batches) < updates:
                trainer.lr_step(epoch_itr.epoch)
                epoch_itr = trainer.get_train_iterator(epoch_itr.next_epoch_idx, load_dataset=False)
                run.epochs += 1
    run.end = parameters_of(model)
    return run


def _run_epoch(cfg: DictConfig, run: FairseqRun, epoch_itr: Any, updates: int, validate_after: int) -> None:
    # The first lines of fairseq_cli.train.train, which offers no way to stop after an update.
    itr = epoch_itr.next_epoch_itr(shuffle=epoch_itr.next_epoch_idx > cfg.dataset.curriculum)
    frequencies = cfg.optimization.update_freq
    itr = iterators.GroupedIterator(
        itr,
        frequencies[min(epoch_itr.epoch, len(frequencies)) - 1],
        skip_remainder_batch=cfg.optimization.skip_remainder_batch,
    )
    run.trainer.begin_epoch(epoch_itr.epoch)
    for samples in itr:
        run.rates.append(run.trainer.get_lr())
        run.trainer.train_step(samples)
        run.batches.append([sample["id"].tolist() for sample in samples])
        teacher = getattr(run.task, "frozen_teacher", None)
        run.coefficients.append(None if teacher is None else teacher.coefficients)
        if len(run.batches) == validate_after:
            validate(cfg, run.trainer, run.task, epoch_itr, ["valid"])
        if len(run.batches) == updates:
            return
