"""Measures one cell of ``make bench``: T updates of a student, made and gone back through in one way."""

from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import psutil
import torch
from fairseq import tasks, utils
from fairseq.trainer import Trainer
from torch import Tensor

from benchmarks.cost.group import PLAIN, RULE, Cell, Recording, record_group
from benchmarks.peers.cells import quiet
from benchmarks.peers.task import SEED, PeerTask
from benchmarks.peers.unrolls import UNROLLS
from fairseq_l2t.core import Teacher, unroll
from fairseq_l2t.kernels.twice_differentiable import outer_gradient
from fairseq_l2t.plugin import FairseqStudent
from fairseq_l2t.plugin.student.second_derivatives import fairseq_twice_differentiable
from fairseq_l2t.unroll.adjoint_sweep import hypergradient_with_adjoint
from fairseq_l2t.unroll.memory.budget import memory_plan
from fairseq_l2t.unroll.memory.peak import peak_bytes
from fairseq_l2t.unroll.memory.plan import MemoryPlan

__all__ = ["RECORD", "Clock", "measure_cell", "run_in_child"]

RECORD = "record"
"""In place of a competitor: write the recording of the group."""

_WARM_UP = 2
_OURS = ("ours", "ours-gradients", "ours-graphs", "ours-budget", "ours-fast")
_PEER_UNROLLS = {
    "plain-autograd": UNROLLS["plain"],
    "higher": UNROLLS["higher"],
    "torchopt": UNROLLS["torchopt-functional"],
    "torchopt-meta": UNROLLS["torchopt-meta"],
}


def run_in_child(cell: Cell, data: Path, recording: Path, answer: Path, log: Path) -> None:
    """Measure ``cell`` and write the result to ``answer`` as JSON; all output, tracebacks too, goes to ``log``."""
    os.dup2(os.open(log, os.O_CREAT | os.O_WRONLY | os.O_TRUNC), 2)
    sys.stdout = sys.stderr
    quiet()
    torch.set_num_threads(cell.threads)
    found = record_group(cell, data, recording) if cell.competitor == RECORD else measure_cell(cell, data, recording)
    answer.write_text(json.dumps(found), encoding="utf-8")


def measure_cell(
    cell: Cell, data: Path, recording: Path, new_clock: Callable[[str], Clock] | None = None
) -> dict[str, Any]:
    """Return seconds by part, peak memory in bytes and other figures; an error of a competitor is not caught.

    ``new_clock`` makes the clock, given the device, when the measurement begins (default: `Clock`).
    """
    new_clock = new_clock or Clock
    record = Recording.load(recording)
    if cell.competitor == PLAIN:
        found = _measure_plain(cell, data, record, new_clock)
    elif cell.competitor in _OURS:
        found = _measure_ours(cell, data, record, new_clock)
    else:
        found = _measure_peer(cell, data, record, new_clock)
    return {**found, "peak": _peak(cell.device), "parameters": record.parameters}


def _measure_plain(cell: Cell, data: Path, record: Recording, new_clock: Callable[[str], Clock]) -> dict[str, Any]:
    """Measure updates of ``fairseq-train``: its Trainer, its optimizer, its cross-entropy."""
    cfg = cell.configuration(data)
    utils.set_torch_seed(SEED)
    task = tasks.setup_task(cfg.task)
    model, criterion = task.build_model(cfg.model), task.build_criterion(cfg.criterion)
    trainer = Trainer(cfg, task, model, criterion)
    trainer.get_train_iterator(epoch=1, load_dataset=True, disable_iterator_cache=True)
    trainer.begin_epoch(1)
    batches = [[_on_device(sample, cell.device)] for sample in record.batches]
    for batch in batches[:_WARM_UP]:
        trainer.train_step(batch)
    clock = new_clock(cell.device)
    for batch in batches:
        trainer.train_step(batch)
    clock.lap("unroll")
    return dict(clock.laps)


def _measure_ours(cell: Cell, data: Path, record: Recording, new_clock: Callable[[str], Clock]) -> dict[str, Any]:
    student, teacher = FairseqStudent(cell.student_options(data)), record.teacher.to(cell.device)
    sweep, plan = _sweep_of(cell.competitor), _plan_of(cell, student)
    batches = [[_on_device(sample, cell.device)] for sample in record.batches]
    student.next_batch = iter(batches).__next__
    _, gradient = student.dev_objective()
    sweep(unroll(student, teacher, min(_WARM_UP, cell.updates), memory=plan), gradient)
    student.restart(SEED)
    # New copies as they come, as in a run: those that are kept are part of the memory.
    student.next_batch = map(deepcopy, batches).__next__
    gc.collect()
    before = _resident()
    clock = new_clock(cell.device)
    window = unroll(student, teacher, cell.updates, memory=plan)
    clock.lap("unroll")
    _, gradient = student.dev_objective()
    clock.lap("objective")
    theta = sweep(window, gradient).theta
    clock.lap("reverse")
    found = {**clock.laps, "before": before, "error": _error(theta, record.theta)}
    found["recomputed"] = getattr(window, "recomputed", 0)
    layout = getattr(window, "layout", None)
    return found if layout is None else {**found, "layout": asdict(layout)}


def _measure_peer(cell: Cell, data: Path, record: Recording, new_clock: Callable[[str], Clock]) -> dict[str, Any]:
    unrolled = _PEER_UNROLLS[cell.competitor]
    teacher = record.teacher.to(cell.device)
    batches = [_on_device(sample, cell.device) for sample in record.batches]
    states = [state.to(cell.device) for state in record.states]
    cfg = cell.configuration(data)
    task = _TimedTask(
        cfg,
        tasks.setup_task(cfg.task),
        True,
        RULE,
        record.loss_shape,
        batches,
        states,
        _on_device(record.dev, cell.device),
        teacher,
        dtype=torch.float32,
        device=cell.device,
        every_name=True,
    )
    with fairseq_twice_differentiable(fused=False):
        _peer_hypergradient(replace(task, batches=batches[:_WARM_UP]), unrolled, teacher)
        gc.collect()
        before = _resident()
        task.clock = clock = new_clock(cell.device)
        theta = _peer_hypergradient(task, unrolled, teacher)
        clock.lap("reverse")
    return {**clock.laps, "before": before, "error": _error(theta, record.theta), "recomputed": 0}


class _TimedTask(PeerTask):
    """A task that takes the times at which the measure begins and ends."""

    clock: Clock | None = None

    def measure(self, model: Any) -> Tensor:
        """See `PeerTask.measure`."""
        if self.clock is None:
            return super().measure(model)
        self.clock.lap("unroll")
        value = super().measure(model)
        self.clock.lap("objective")
        return value


def _peer_hypergradient(task: PeerTask, unrolled: Callable, teacher: Teacher) -> dict[str, Tensor]:
    measure = unrolled(task, teacher)
    named = dict(teacher.named_parameters())
    with outer_gradient():
        parts = torch.autograd.grad(measure, list(named.values()), allow_unused=True, materialize_grads=True)
    return dict(zip(named, parts, strict=True))


class Clock:
    """Seconds from one lap to the next, on the wall and of the processor; a GPU has finished its work first."""

    def __init__(self, device: str) -> None:
        self._device = device
        self.laps: dict[str, dict[str, float]] = {"seconds": {}, "cpu_seconds": {}}
        if device == "cuda":
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        self._last = perf_counter(), process_time()

    def lap(self, name: str) -> None:
        """End the part ``name``; the next one begins."""
        if self._device == "cuda":
            torch.cuda.synchronize()
        now = perf_counter(), process_time()
        for laps, here, before in zip(self.laps.values(), now, self._last, strict=True):
            laps[name] = here - before
        self._last = now


def _plan_of(cell: Cell, student: FairseqStudent) -> MemoryPlan | None:
    if cell.competitor == "ours":
        return None
    if cell.competitor == "ours-graphs":
        return memory_plan(cell.graph_budget, keep_graphs=True, reserve=peak_bytes(student.dev_objective))
    if cell.competitor == "ours-budget":
        return memory_plan(cell.budget, reserve=peak_bytes(student.dev_objective))
    return memory_plan(for_differences=cell.competitor == "ours-fast")


def _sweep_of(competitor: str) -> Callable:
    if competitor != "ours-fast":
        return hypergradient_with_adjoint
    return partial(hypergradient_with_adjoint, hvp="finite-difference")


def _error(theta: dict[str, Tensor], reference: dict[str, Tensor]) -> float:
    """Return the relative error on the worst tensor of the teacher."""
    gaps = [(theta[name].cpu() - part).norm() / part.norm() for name, part in reference.items()]
    return float(torch.stack(gaps).max())


def _on_device(sample: dict[str, Any], device: str) -> dict[str, Any]:
    return utils.move_to_cuda(sample) if device == "cuda" else sample


def _peak(device: str) -> int:
    return torch.cuda.max_memory_allocated() if device == "cuda" else _peak_resident()


def _resident() -> int:
    return psutil.Process().memory_info().rss


def _peak_resident() -> int:
    """Return bytes. ``resource.getrusage`` would include the process this one was forked from; psutil has no peak."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
