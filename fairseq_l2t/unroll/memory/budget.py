"""The memory budget of a window: parsing, defaults, and the plan that keeps to it.

The order in which updates are recomputed under a small budget comes from the library ``checkpoint_schedules``
(Dolci, Maddison, Ham, Pallez & Herrmann 2024), which implements "Algorithm 799: revolve" (Griewank & Walther 2000).
"""

from __future__ import annotations

import ctypes
import logging
import math
import os
import re
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import psutil
import torch
from checkpoint_schedules.multistage import n_advance
from torch import Tensor

from fairseq_l2t.unroll.memory.peak import peak_bytes
from fairseq_l2t.unroll.memory.plan import MemoryPlan, layout_for
from fairseq_l2t.unroll.memory.stores import PLACES, DeviceStore, FileStore, HostStore, VectorStore

__all__ = ["bytes_of", "half_of_memory", "memory_plan", "plan_for"]

CONTAINER_LIMIT_FILES = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""Memory limit of Linux control groups, version 2 and version 1, at the path where a process in a container sees it.
psutil reports the memory of the whole machine and ignores these limits."""

UNIT_BYTES = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
MAXIMUM_BYTES = 2.0**63
SHARE_VARIABLE = "L2T_MEMORY_SHARE"

logger = logging.getLogger(__name__)


class HasVectors(Protocol):
    """The part of a student that a plan depends on: parameters (n,) and optimizer state, vectors (n,)."""

    @property
    def omega(self) -> Tensor: ...

    @property
    def buffers(self) -> tuple[Tensor, ...]: ...


def plan_for(
    student: HasVectors,
    steps: int,
    budget: int | None,
    measure: Callable[[], object],
    *,
    keep_graphs: bool = False,
    place: str = "device",
    folder: Path | None = None,
    for_differences: bool = False,
    processes: int = 1,
) -> MemoryPlan:
    """Return the memory plan of a teacher run, for windows of ``steps`` updates of ``student``.

    A given budget on the student's device also covers the measure on dev: its peak is measured once and reserved.
    Without a budget the limit is half of the memory at ``place``; the measure has the other half. A file without a
    budget takes the gradients of all updates.

    Args:
        student: as it was built; the same at every start of the run, so that a resumed run gets the same plan.
        steps: updates per window.
        budget: bytes of ``--memory-budget``; None: not given.
        measure: computes the measure on dev with its gradient, on the batch that needs the most memory.
        keep_graphs, place, folder, for_differences: see `memory_plan`.
        processes: processes of this host, which share the budget; those with a GPU of their own do not.

    Raises:
        ValueError: the budget is too small for any window, with the smallest budget that is enough; a wrong
            ``L2T_MEMORY_SHARE``; wrong arguments of `memory_plan`.
    """
    on_device, given = place == "device", budget is not None
    if budget is None and place != "file":
        budget = half_of_memory(student.omega.device if on_device else torch.device("cpu"))
    if budget is not None and processes > 1:
        gpus = torch.cuda.device_count() if on_device and student.omega.is_cuda else 1
        budget //= -(-processes // gpus)
        logger.info("memory budget: %dM for each of the %d processes of this host", budget // 2**20, processes)
    reserve = 0
    if given and on_device:
        reserve = peak_bytes(measure)
        logger.info("--memory-budget: %dM of it are for the measure on dev", -(-reserve // 2**20))
    plan = memory_plan(
        budget,
        keep_graphs=keep_graphs,
        place=place,
        folder=folder,
        for_differences=for_differences,
        reserve=reserve,
    )
    # A budget too small for parameters and optimizer state fails here. The first window adds the size of a graph.
    try:
        layout_for(steps, vector=student.omega.nbytes, buffers=len(student.buffers), budget=budget, reserve=reserve)
    except ValueError as error:
        if given:
            raise
        raise ValueError(f"{error} (default: half of the memory, times {SHARE_VARIABLE} if set)") from None
    return plan


def memory_plan(
    budget: int | None = None,
    *,
    keep_graphs: bool = False,
    place: str = "device",
    folder: Path | None = None,
    for_differences: bool = False,
    reserve: int = 0,
) -> MemoryPlan:
    """Return the memory plan of a window.

    Args:
        budget: bytes for the saved updates, at ``place``; None: the size of the gradients of all updates.
        keep_graphs: spend the rest of the budget on graphs (only at ``device``).
        place: ``device``, ``host`` or ``file``.
        folder: folder of the file; the file has no name and disappears with the process.
        for_differences: save the extra data of ``hvp="finite-difference"``; without it that method computes every
            gradient twice.
        reserve: bytes of the budget for the measure on dev, on the student's device.

    Raises:
        ValueError: an unknown place, a file without a folder, graphs without a budget or off the device.

    Example:
        >>> from fairseq_l2t.core import memory_plan
        >>> plan = memory_plan(512 * 2**20, keep_graphs=True)
        >>> plan.budget, plan.keep_graphs
        (536870912, True)
        >>> memory_plan(place="disk")
        Traceback (most recent call last):
        ...
        ValueError: --keep-steps-in: disk; expected one of device, host, file
    """
    if place not in PLACES:
        raise ValueError(f"--keep-steps-in: {place}; expected one of {', '.join(PLACES)}")
    if keep_graphs and place != "device":
        raise ValueError(f"--keep-graphs: graphs stay on the student's device; --keep-steps-in is {place}")
    make_store: Callable[[], VectorStore[Any]] = DeviceStore
    if place == "host":
        make_store = HostStore
    if place == "file":
        if folder is None:
            raise ValueError("--keep-steps-in: file needs a folder")
        make_store = partial(FileStore, folder)
    give_back = _trim if budget is not None and place == "device" else lambda: None
    return MemoryPlan(budget, n_advance, keep_graphs, make_store, for_differences, reserve, give_back)


def _trim() -> None:
    """Return free pages of glibc's heap to the operating system; without glibc, do nothing.

    Blocks freed between blocks still in use leave holes, which count as resident memory until then.
    `unroll.memory.packing` keeps the holes small; saved gradients still lie among them.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)


def bytes_of(text: str, option: str = "--memory-budget") -> int:
    """Return the number of bytes of a size such as ``512M`` or ``2G`` (powers of 1024), the value of ``option``.

    Raises:
        ValueError: not a size, below one byte, or 2^63 bytes and more.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    size = float(found[1]) * UNIT_BYTES[found[2].upper()] if found else 0.0
    if not 1 <= size < MAXIMUM_BYTES:
        raise ValueError(f"{option}: {text}; expected a size such as 512M or 2G")
    return int(size)


def half_of_memory(device: torch.device, limits: Sequence[Path] = CONTAINER_LIMIT_FILES) -> int:
    """Return half of the memory of a device, in bytes; for a CPU, of the machine or of the container, if smaller.

    Several processes side by side would each take half of the whole. The environment variable ``L2T_MEMORY_SHARE``, a
    number such as 0.5, sets the share of the memory that belongs to this process.

    Args:
        device: the student's device.
        limits: files that may hold the memory limit of a container.

    Raises:
        ValueError: ``L2T_MEMORY_SHARE`` is not a number above 0 and up to 1.
    """
    if device.type == "cuda":
        size = torch.cuda.get_device_properties(device).total_memory
    else:
        sizes = [psutil.virtual_memory().total]
        for path in limits:
            text = path.read_text(encoding="ascii").strip() if path.is_file() else ""
            sizes += [int(text)] if text.isdecimal() else []  # "max": no limit
        size = min(sizes)
    return int(size * _own_share() / 2)


def _own_share() -> float:
    text = os.environ.get(SHARE_VARIABLE, "1")
    try:
        share = float(text)
    except ValueError:
        share = math.nan
    if not 0 < share <= 1:
        raise ValueError(
            f"{SHARE_VARIABLE}: {text}; expected a number above 0 and up to 1, or no such environment variable"
        )
    return share
