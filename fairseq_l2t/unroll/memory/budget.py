"""The memory budget of a window: its default, its units, and the plan that keeps to it.

The order in which updates are recomputed under a small budget comes from the library ``checkpoint_schedules``
(Dolci, Maddison, Ham, Pallez & Herrmann 2024), which implements "Algorithm 799: revolve" (Griewank & Walther 2000).
"""

from __future__ import annotations

import ctypes
import math
import os
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from checkpoint_schedules.multistage import n_advance

from fairseq_l2t.unroll.memory.plan import MemoryPlan
from fairseq_l2t.unroll.memory.stores import PLACES, DeviceStore, FileStore, HostStore

__all__ = ["bytes_of", "half_of_memory", "memory_plan"]

_CONTAINER_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""Of the second and first version of Linux's control groups, as a process in a container sees its own."""

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_TOO_LARGE = 2.0**63
_SHARE = "L2T_MEMORY_SHARE"


def memory_plan(
    budget: int | None = None,
    *,
    keep_graphs: bool = False,
    place: str = "device",
    folder: Path | None = None,
    for_differences: bool = False,
    reserve: int = 0,
) -> MemoryPlan:
    """Return the plan of a window.

    Args:
        budget: bytes for what is kept, at ``place``; None: what the gradients of all updates take.
        keep_graphs: spend the rest of the budget on graphs (on the student's device only).
        place: ``device``, ``host`` or ``file``.
        folder: where the file is made; it has no name and is gone with the process.
        for_differences: keep what ``hvp="finite-difference"`` needs; without it gradients are computed twice there.
        reserve: bytes of the budget that the measure on dev takes, on the student's device.

    Raises:
        ValueError: a place that does not exist, a file without a folder, graphs without a budget or off the device.
    """
    if place not in PLACES:
        raise ValueError(f"--keep-steps-in: {place}; expected one of {', '.join(PLACES)}")
    if place == "file" and folder is None:
        raise ValueError("--keep-steps-in: file needs a folder")
    if keep_graphs and place != "device":
        raise ValueError(f"--keep-graphs: graphs stay on the student's device; --keep-steps-in is {place}")
    stores = {"device": DeviceStore, "host": HostStore, "file": partial(FileStore, folder)}
    give_back = _trim if budget is not None and place == "device" else lambda: None
    return MemoryPlan(budget, n_advance, keep_graphs, stores[place], for_differences, reserve, give_back)


def _trim() -> None:
    """Have glibc return the pages of freed blocks; elsewhere nothing.

    Between what an update keeps and what it frees holes are left, which count as resident until then. `unroll.memory.packing`
    keeps them small; gradients that are kept still stand among them.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if os.name == "posix" else None
    if trim is not None:
        trim(0)


def bytes_of(text: str, option: str = "--memory-budget") -> int:
    """Return the bytes of a size such as ``512M`` or ``2G`` (powers of 1024), the value of ``option``.

    Raises:
        ValueError: not such a size, less than one byte, or more than any machine has.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    size = float(found[1]) * _UNITS[found[2].upper()] if found else 0.0
    if not 1 <= size < _TOO_LARGE:
        raise ValueError(f"{option}: {text}; expected a size such as 512M or 2G")
    return int(size)


def half_of_memory(device: torch.device, limits: Sequence[Path] = _CONTAINER_LIMITS) -> int:
    """Return half of the memory a device has, in bytes; for a CPU, of the machine or of what its container may take.

    Of processes that run beside each other each would take half of the whole: whoever starts several says in the
    environment variable ``L2T_MEMORY_SHARE``, a number such as 0.5, which share is that of one.

    Args:
        device: the student's.
        limits: files that may hold a container's limit.

    Raises:
        ValueError: ``L2T_MEMORY_SHARE`` is no number above 0 and up to 1.
    """
    if device.type == "cuda":
        size = torch.cuda.get_device_properties(device).total_memory
    else:
        sizes = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
        for path in limits:
            text = path.read_text(encoding="ascii").strip() if path.is_file() else ""
            sizes += [int(text)] if text.isdecimal() else []  # "max": no limit
        size = min(sizes)
    return int(size * _own_share() / 2)


def _own_share() -> float:
    text = os.environ.get(_SHARE, "1")
    try:
        share = float(text)
    except ValueError:
        share = math.nan
    if not 0 < share <= 1:
        raise ValueError(f"{_SHARE}: {text}; expected a number above 0 and up to 1, or no such environment variable")
    return share
