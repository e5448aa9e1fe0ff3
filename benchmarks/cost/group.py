"""A cell of ``make bench``, and the recording that all cells of a group (size, family, T) share.

The recording holds batches, teacher, states and dev pairs, and the hypergradient of our exact mode, the reference.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fairseq import utils
from torch import Tensor

from benchmarks.peers.task import SEED, Rule
from benchmarks.small_students import FAMILIES as SMALL
from fairseq_l2t.core import LossShape, Teacher, unroll
from fairseq_l2t.plugin import FairseqStudent
from fairseq_l2t.plugin.student_options import StudentOptions, parse_student_options
from fairseq_l2t.testing.fairseq_reference import configuration
from fairseq_l2t.testing.tiny_students import FAMILIES as TINY
from fairseq_l2t.testing.tiny_students import spread_teacher
from fairseq_l2t.unroll.adjoint_sweep import hypergradient_with_adjoint
from fairseq_l2t.unroll.memory.budget import memory_plan

__all__ = ["PLAIN", "RULE", "SIZES", "Cell", "Recording", "record_group"]

IWSLT = {
    "lstm": ["--arch", "lstm_wiseman_iwslt_de_en"],
    "fconv": ["--arch", "fconv_iwslt_de_en"],
    "transformer": ["--arch", "transformer_iwslt_de_en"],
}
SIZES = {"tiny": TINY, "small": SMALL, "iwslt": IWSLT}
"""``tiny``: width 16, for tests; ``small``: width 64, two layers; ``iwslt``: fairseq's recipes for IWSLT 2014."""

RULE = Rule(5e-4, betas=(0.9, 0.98), fairseq_eps=True)
_RECIPE = ["--lr-scheduler", "fixed", "--clip-norm", "0", "--dropout", "0.1", "--num-workers", "0"]
"""No clipping and no schedule: some peers do not offer them."""

_LIFE = ["--total-updates", "4000", "--cross-entropy-updates", "0", "--dev-batch", "16"]
PLAIN = "plain-updates"


@dataclass(frozen=True)
class Cell:
    """One measurement.

    Args:
        size, family: the student, a key of `SIZES` and one of its families.
        updates: T.
        competitor: the way to make the updates and to go back, one of `benchmarks.cost.options.COMPETITORS`.
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
        """The values that identify the cell, plain."""
        budget = {"ours-budget": self.budget, "ours-graphs": self.graph_budget}.get(self.competitor)
        values = {name: value for name, value in asdict(self).items() if not name.endswith("budget")}
        return values if budget is None else {**values, "budget": budget}

    def arguments(self, data: Path) -> list[str]:
        """Return the command line of ``fairseq-train``."""
        sizes = SIZES[self.size][self.family]
        device = ["--cpu"] if self.device == "cpu" else []
        recipe = [*_RECIPE, "--max-tokens", str(self.max_tokens), "--seed", str(SEED)]
        return [str(data), *sizes, *RULE.options, *recipe, *device]

    def configuration(self, data: Path) -> Any:
        """Return fairseq's configuration."""
        return configuration(self.arguments(data))

    def student_options(self, data: Path) -> StudentOptions:
        """Return the checked options of our student."""
        return parse_student_options([*self.arguments(data), *_LIFE])


@dataclass
class Recording:
    """What all cells of a group share, on the CPU.

    Its file holds tensors, numbers and names alone, which ``weights_only`` loads.

    Args:
        batches: of the T updates.
        states: s_t (features,) of each update.
        dev: the sample of the measure.
        teacher: of the updates.
        loss_shape: of the student.
        theta: the hypergradient by name, by our exact mode.
        parameters: number of the student's parameters that the loss reaches.
    """

    batches: list[dict[str, Any]]
    states: list[Tensor]
    dev: dict[str, Any]
    teacher: Teacher
    loss_shape: LossShape
    theta: dict[str, Tensor]
    parameters: int

    def save(self, path: Path) -> None:
        """Write the file."""
        teacher = {"features": list(self.teacher.features), "parameters": self.teacher.state_dict()}
        torch.save({**vars(self), "teacher": teacher, "loss_shape": asdict(self.loss_shape)}, path)

    @classmethod
    def load(cls, path: Path) -> Recording:
        """Read the file."""
        values = torch.load(path, weights_only=True)
        parameters = values["teacher"]["parameters"]
        teacher = Teacher(values["teacher"]["features"], len(parameters["values"]), keys=len(parameters["queries"]))
        teacher.load_state_dict(parameters)
        return cls(**{**values, "teacher": teacher, "loss_shape": LossShape(**values["loss_shape"])})


def record_group(cell: Cell, data: Path, path: Path) -> dict[str, Any]:
    """Write the `Recording` of a group to ``path``; the reference is exact also where only gradients are kept."""
    student = FairseqStudent(cell.student_options(data))
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
    samples = [_plain(utils.move_to_cpu(batch[0])) for batch in batches]
    # Coefficients are computed from states again on the way back: the first T are those of the updates.
    states = [state.cpu() for state in states[: cell.updates]]
    dev = _plain(student.dev.sample(student.dev.teaching[: student.options.namespace.dev_batch]))
    shape, count = student.options.loss_shape, len(student.omega)
    theta = {name: part.cpu() for name, part in theta.items()}
    Recording(samples, states, dev, teacher.cpu(), shape, theta, count).save(path)
    return {"parameters": count}


def _plain(value: Any) -> Any:
    """Return a sample with Python's own numbers in place of NumPy's."""
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    return value.item() if isinstance(value, np.generic) else value
