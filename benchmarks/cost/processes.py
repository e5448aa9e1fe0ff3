"""Runs each cell of ``make bench`` in a process of its own, with limits of time and memory."""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
import re
import time
from importlib import metadata, util
from pathlib import Path
from typing import Any

import psutil
import torch

from benchmarks.cost.cells import run_in_child
from benchmarks.cost.group import Cell
from benchmarks.peers.unrolls import INSTALL, module_of

__all__ = ["Watch", "machine", "run_cell"]

_PRELOADED = ("benchmarks.cost.cells", "torch._dynamo")
"""Modules of the process that others are forked from. PyTorch imports the second with its first optimizer."""

_POLL_SECONDS = 0.05


class Watch:
    """Limits of the process of a cell.

    Args:
        folder: for the output and the answers of processes.
        timeout: seconds.
        memory_limit: bytes of resident memory.
        threads: of every process.
    """

    def __init__(self, folder: Path, timeout: float, memory_limit: int, threads: int) -> None:
        self.folder, self.timeout, self.memory_limit = folder, timeout, memory_limit
        # OpenMP reads it when it is loaded: too late for this process, in time for others.
        os.environ["OMP_NUM_THREADS"] = str(threads)


def run_cell(cell: Cell, data: Path, recording: Path, watch: Watch) -> dict[str, Any]:
    """Return the result of `cells.measure_cell`; ``status`` is ``ok``, or the reason why there is none."""
    module = module_of(cell.competitor)
    if module is not None and util.find_spec(module) is None:
        return {"status": f"not installed: {INSTALL[module]}"}
    answer, log = watch.folder / "answer.json", watch.folder / "log.txt"
    for path in (answer, log):
        path.unlink(missing_ok=True)
    process = _context(cell.device).Process(target=run_in_child, args=(cell, data, recording, answer, log))
    process.start()
    try:
        status = _wait(process, watch)
    finally:
        process.kill()
        process.join()
    if status is None and answer.exists():
        return {"status": "ok", **json.loads(answer.read_text(encoding="utf-8"))}
    return {"status": status or _last_words(log)}


def machine(device: str) -> dict[str, Any]:
    """Return the processor or card, the number of cores, and the versions of the libraries."""
    card = torch.cuda.get_device_name() if device == "cuda" else None
    versions = {}
    for name in ("torch", "fairseq", "higher", "torchopt"):
        if util.find_spec(name) is not None:
            versions[name] = metadata.version(name)
    return {"device": card or _processor(), "cores": os.cpu_count(), "python": platform.python_version(), **versions}


def _context(device: str):
    if device == "cuda":  # CUDA does not survive a fork
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*_PRELOADED, *(m for m in INSTALL if util.find_spec(m))])
    return context


def _wait(process, watch: Watch) -> str | None:
    """Return None when the process has ended by itself, or the limit it exceeded."""
    end = time.monotonic() + watch.timeout
    while process.is_alive():
        if time.monotonic() > end:
            return f"no answer within {watch.timeout:g} s"
        if _resident(process.pid) > watch.memory_limit:
            return f"over {watch.memory_limit / 2**30:.3g} GiB"
        process.join(_POLL_SECONDS)
    return None


def _resident(pid: int) -> int:
    try:
        return psutil.Process(pid).memory_info().rss
    except psutil.NoSuchProcess:  # it has just ended
        return 0


def _last_words(log: Path) -> str:
    """Return the error a process ended with: the last line of its log that names one."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
    errors = [line for line in lines if re.match(r"[A-Za-z_][\w.]*(Error|Exception)\b", line)]
    if not errors:
        return "raises: the process ended without an answer"
    if "OutOfMemoryError" in errors[-1]:
        return f"out of memory: {errors[-1]}"
    return f"raises: {errors[-1]}"


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
