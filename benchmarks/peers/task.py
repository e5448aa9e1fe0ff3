"""The task every peer is given: a stock fairseq student, real batches, a teacher, and a measure on dev pairs.

fairseq itself builds the student, without our corrections. In float64 fairseq's casts to float32 are undone
(`checks.float64`): they would blur the comparison.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from fairseq import tasks, utils
from fairseq.optim.adam import Adam as FairseqAdam
from fairseq.tasks.translation import TranslationTask
from torch import Tensor, nn

from fairseq_l2t.checks.float64 import KeepFloat64
from fairseq_l2t.core import LossShape, Teacher, Trajectory, dynamic_loss, unroll
from fairseq_l2t.plugin import FairseqStudent
from fairseq_l2t.plugin.student.second_derivatives import drop_fast_path
from fairseq_l2t.testing.fairseq_reference import configuration
from fairseq_l2t.testing.tiny_students import FAMILIES, spread_teacher

__all__ = ["RULES", "PeerTask", "Rule", "make_task", "trained_values"]

SEED = 3
_RECIPE = ["--batch-size", "8", "--seed", str(SEED), "--clip-norm", "0", "--lr-scheduler", "fixed"]
"""No clipping and no schedule: some peers do not offer them."""


@dataclass(frozen=True)
class Rule:
    """An optimizer as every peer names its settings; ``betas`` None: (momentum) SGD.

    ``fairseq_eps``: whether plain PyTorch and TorchOpt are given Adam as fairseq (and ``higher``) have it, with eps
    outside the bias correction. PyTorch's own is another optimizer where gradients are as small as eps.
    """

    lr: float
    momentum: float = 0.0
    betas: tuple[float, float] | None = None
    eps: float = 1e-8
    fairseq_eps: bool = False

    def adam_step(self, count: int) -> tuple[float, float]:
        """Return (a, e) for Adam's update ``a m / (sqrt(v) + e)`` number ``count``, from 1."""
        beta1, beta2 = self.betas
        root = math.sqrt(1 - beta2**count)
        return self.lr * root / (1 - beta1**count), self.eps if self.fairseq_eps else self.eps * root

    @property
    def options(self) -> list[str]:
        """Options of ``fairseq-train`` for it."""
        if self.betas is None:
            return ["--optimizer", "sgd", "--lr", str(self.lr), "--momentum", str(self.momentum)]
        return ["--optimizer", "adam", "--lr", str(self.lr), "--adam-betas", str(self.betas)]

    def make(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Return PyTorch's own optimizer."""
        if self.betas is None:
            return torch.optim.SGD(parameters, lr=self.lr, momentum=self.momentum)
        return torch.optim.Adam(parameters, lr=self.lr, betas=self.betas, eps=self.eps)


RULES = {"sgd": Rule(1.0), "momentum": Rule(0.3, momentum=0.9), "adam": Rule(0.01, betas=(0.9, 0.98))}


@dataclass
class PeerTask:
    """T updates under a teacher, and a measure after them.

    Args:
        cfg, translation: fairseq's configuration and task.
        mended: whether our corrections of fairseq's modules are active around the peer.
        rule: the optimizer.
        loss_shape: that of the plugin's defaults.
        batches: one of fairseq's samples for each update.
        states: s_t (features,) of each update.
        dev: the sample the measure is taken on.
        teacher: the teacher of the updates.
        trajectory: the same updates by our own student; None where it is not compared.
        dtype, device: of the student.
        every_name: whether ``functional_call`` is given a tied weight under each of its names; by itself it loses
            some (README.md).
    """

    cfg: Any
    translation: TranslationTask
    mended: bool
    rule: Rule
    loss_shape: LossShape
    batches: list[dict[str, Any]]
    states: list[Tensor]
    dev: dict[str, Any]
    teacher: Teacher
    trajectory: Trajectory | None = None
    dtype: torch.dtype = torch.float64
    device: str = "cpu"
    every_name: bool = False

    @property
    def padding(self) -> int:
        """Index of the padding symbol."""
        return self.translation.target_dictionary.pad()

    def student(self) -> nn.Module:
        """Return the student at the beginning of its life, built by fairseq with ``--seed``."""
        utils.set_torch_seed(SEED)
        model = self.translation.build_model(self.cfg.model).to(device=self.device, dtype=self.dtype)
        if self.mended:
            drop_fast_path(model)
        return model

    def loss(self, model: Any, update: int, teacher: Teacher) -> Tensor:
        """Return the dynamic loss per target token of update ``update``; ``model`` is called as fairseq's are."""
        sample = self.batches[update]
        utils.set_torch_seed(SEED + update)
        model.train()
        with self._precision():
            log_probs = model.get_normalized_probs(model(**sample["net_input"]), log_probs=True)
            target = sample["target"]
            of_targets = log_probs.gather(-1, target.unsqueeze(-1)).squeeze(-1)
            keep, coefficients = target.ne(self.padding), teacher(self.states[update])
            return dynamic_loss(of_targets, target, coefficients, keep, self.loss_shape) / sample["ntokens"]

    def measure(self, model: Any) -> Tensor:
        """Return the mean probability of the dev targets, in eval mode."""
        model.eval()
        with self._precision():
            output = model(**self.dev["net_input"])
            log_probs = model.get_normalized_probs(output, log_probs=True)
        target = self.dev["target"]
        return log_probs.gather(-1, target.unsqueeze(-1)).squeeze(-1)[target.ne(self.padding)].exp().mean()

    def _precision(self) -> AbstractContextManager:
        return KeepFloat64() if self.dtype == torch.float64 else nullcontext()


def make_task(data: Path, family: str, optimizer: str, *, steps: int = 3, mended: bool = False) -> PeerTask:
    """Return the task of ``steps`` updates for a family of `fairseq_l2t.testing.tiny_students`."""
    rule = RULES[optimizer]
    arguments = [str(data), *FAMILIES[family], *rule.options, *_RECIPE]
    life = ["--total-updates", "20", "--cross-entropy-updates", "0", "--dev-batch", "8"]
    ours = FairseqStudent.from_args([*arguments, *life]).double()
    dev = ours.dev.sample(ours.dev.teaching[:8])
    trajectory = unroll(ours, spread_teacher(ours), steps)
    batches = [step.batch[0] for step in trajectory.steps]
    states = [step.state for step in trajectory.steps]
    cfg = configuration(arguments)
    translation = tasks.setup_task(cfg.task)
    shape, teacher = ours.options.loss_shape, trajectory.teacher
    return PeerTask(cfg, translation, mended, rule, shape, batches, states, dev, teacher, trajectory)


def trained_values(task: PeerTask) -> dict[str, float]:
    """Return the measure before training, and after T real updates in place by each optimizer of that name.

    PyTorch's Adam and fairseq's differ in where eps stands; a peer may have either.
    """
    makers: dict[str, Callable] = {"torch": task.rule.make}
    if task.rule.betas is not None:
        makers["fairseq"] = lambda parameters: FairseqAdam(
            parameters, lr=task.rule.lr, betas=task.rule.betas, eps=task.rule.eps
        )
    with torch.no_grad():
        values = {"start": float(task.measure(task.student()))}
    for name, make in makers.items():
        model = task.student()
        optimizer = make(model.parameters())
        for update in range(len(task.batches)):
            optimizer.zero_grad()
            task.loss(model, update, task.teacher).backward()
            optimizer.step()
        with torch.no_grad():
            values[name] = float(task.measure(model))
    task.teacher.zero_grad()
    return values
