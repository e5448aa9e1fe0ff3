"""What a cell of ``make bench`` is, and what all cells of a group (size, family, T) share.

The same batches, teacher, states and dev pairs, and the hypergradient of our exact mode, which every other one is held
against.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from fairseq import utils
from torch import Tensor

from benchmarks.fairseq_run import configuration
from benchmarks.peer_task import SEED, Rule
from benchmarks.tiny import FAMILIES as TINY
from benchmarks.tiny import spread_teacher
from benchmarks.truncation import FAMILIES as SMALL
from fairseq_l2t.core import LossShape, Teacher, unroll
from fairseq_l2t.core.reverse import hypergradient_with_adjoint
from fairseq_l2t.plugin import FairseqStudent
from fairseq_l2t.plugin.config import StudentOptions, parse_student_options
from fairseq_l2t.storage import memory_plan

__all__ = ["PLAIN", "RULE", "SIZES", "Cell", "Recording", "record_group"]

IWSLT = {
    "lstm": ["--arch", "lstm_wiseman_iwslt_de_en"],
    "fconv": ["--arch", "fconv_iwslt_de_en"],
    "transformer": ["--arch", "transformer_iwslt_de_en"],
}
SIZES = {"tiny": TINY, "small": SMALL, "iwslt": IWSLT}
"""``small``: width 64, two layers; ``iwslt``: as fairseq's recipes for IWSLT 2014 have them; ``tiny``: for tests."""

RULE = Rule(5e-4, betas=(0.9, 0.98), fairseq_eps=True)
_RECIPE = ["--lr-scheduler", "fixed", "--clip-norm", "0", "--dropout", "0.1", "--num-workers", "0"]
"""No clipping and no schedule: what a peer does not offer shall not be held against it."""

_LIFE = ["--total-updates", "4000", "--cross-entropy-updates", "0", "--dev-batch", "16"]
PLAIN = "plain-updates"


@dataclass(frozen=True)
class Cell:
    """What is measured.

    Args:
        size, family: the student, a key of `SIZES` and one of its families.
        updates: T.
        competitor: who makes the updates and goes back.
        repeat: number of the repeat, from 0.
        device: ``cpu`` or ``cuda``.
        threads: of PyTorch.
        max_tokens: size of a batch.
        budget, graph_budget: bytes for ``ours-budget`` and ``ours-graphs``.
    """

    size: str
    family: str
    updates: int
    competitor: str
    repeat: int = 0
    device: str = "cpu"
    threads: int = 1
    max_tokens: int = 1000
    budget: int = 2**29
    graph_budget: int = 2**32

    @property
    def key(self) -> dict[str, Any]:
        """What tells it from others, as plain values."""
        budget = {"ours-budget": self.budget, "ours-graphs": self.graph_budget}.get(self.competitor)
        values = {name: value for name, value in asdict(self).items() if not name.endswith("budget")}
        return values if budget is None else {**values, "budget": budget}

    def arguments(self, data: Path) -> list[str]:
        """Return the command line of ``fairseq-train``."""
        sizes = SIZES[self.size][self.family]
        device = ["--cpu"] if self.device == "cpu" else []
        recipe = [*_RECIPE, "--max-tokens", str(self.max_tokens), "--seed", str(SEED)]
        return [str(data), *sizes, *RULE.options, *recipe, *device]


@dataclass
class Recording:
    """What all cells of a group share; ``batches`` and ``dev`` are on the CPU, ``theta`` is ours in exact mode."""

    batches: list[dict[str, Any]]
    states: list[Tensor]
    dev: dict[str, Any]
    teacher: Teacher
    loss_shape: LossShape
    theta: dict[str, Tensor]
    parameters: int
    """Number of the student's parameters that a loss reaches."""
    cfg: Any
    options: StudentOptions
    """fairseq's configuration and ours, which take seconds to put together."""


def record_group(cell: Cell, data: Path, path: Path) -> dict[str, Any]:
    """Write the `Recording` of a group; the reference is exact also where only gradients are kept."""
    cfg, options = configuration(cell.arguments(data)), parse_student_options([*cell.arguments(data), *_LIFE])
    student = FairseqStudent(options)
    teacher = spread_teacher(student)
    batches, states = [], []
    next_batch = student.next_batch

    def kept_batch() -> list[dict[str, Any]]:
        batches.append(next_batch())
        return batches[-1]

    student.next_batch = kept_batch
    hook = teacher.register_forward_pre_hook(lambda _, inputs: states.append(inputs[0]))
    window = unroll(student, teacher, cell.updates, memory=memory_plan(cell.graph_budget))
    hook.remove()
    _, gradient = student.dev_objective()
    theta = hypergradient_with_adjoint(window, gradient).theta
    samples = [utils.move_to_cpu(batch[0]) for batch in batches]
    # Coefficients are computed from states again on the way back: the first T are those of the updates.
    states = [state.cpu() for state in states[: cell.updates]]
    dev = student.dev.sample(student.dev.teaching[: student.options.namespace.dev_batch])
    shape, count = student.options.loss_shape, len(student.omega)
    theta = {name: part.cpu() for name, part in theta.items()}
    torch.save(Recording(samples, states, dev, teacher.cpu(), shape, theta, count, cfg, options), path)
    return {"parameters": count}
