"""Where does the time of an unrolled step go, forward and back? Shares by PyTorch's profiler.

    python -m benchmarks.cost.run profile --families transformer fconv

The cells of ``make bench``, one after the other in this process. The profiler slows small operations down: read the
shares and the numbers of operators, and take times from `benchmarks.cost.unroll`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import torch
from tabulate import tabulate
from torch.profiler import ProfilerActivity, profile

from benchmarks.cost.cells import Clock, measure_cell
from benchmarks.cost.group import PLAIN, Cell, record_group
from benchmarks.cost.options import COMPETITORS, FAMILIES, add_options, check_options, corpus_for
from benchmarks.peers.cells import quiet

__all__ = ["main"]

GROUPS = {
    "matrix products": ("mm", "addmm", "bmm", "baddbmm", "addbmm", "mv", "dot", "linear", "convolution", "conv_tbc"),
    "moving data": (
        "copy_",
        "clone",
        "cat",
        "stack",
        "index",
        "gather",
        "scatter",
        "embedding",
        "fill_",
        "zero_",
        "empty",
    ),
}
"""Beginnings of operators' names; all others are elementwise work and reductions."""

_ELEMENTWISE, _OUTSIDE = "elementwise, reductions", "outside operators"


class _PartsClock(Clock):
    """A clock that profiles every part."""

    def __init__(self, device: str) -> None:
        super().__init__(device)
        self.parts: dict[str, dict[str, float]] = {}
        self._begin()

    def _begin(self) -> None:
        self._profile = profile(activities=[ProfilerActivity.CPU], acc_events=True)
        self._profile.start()
        self._start = perf_counter()

    def lap(self, name: str) -> None:
        """See `Clock.lap`."""
        wall = perf_counter() - self._start
        self._profile.stop()
        self.parts[name] = _by_group(self._profile.key_averages(), wall)
        super().lap(name)
        self._begin()

    def close(self) -> None:
        """End the part that has just begun."""
        self._profile.stop()


def _by_group(averages: Sequence, wall: float) -> dict[str, float]:
    """Return seconds by group, and how many operators there were."""
    seconds: Counter[str] = Counter()
    operators = 0
    for average in averages:
        name = average.key.removeprefix("aten::")
        if name == average.key:  # a node of autograd: its own time belongs to no operator
            continue
        seconds[_group(name)] += average.self_cpu_time_total / 1e6
        operators += average.count
    return {**seconds, _OUTSIDE: max(0.0, wall - seconds.total()), "operators": operators}


def _group(operator: str) -> str:
    for group, names in GROUPS.items():
        if operator in names or any(operator.startswith(name) for name in names if len(name) > 4):
            return group
    return _ELEMENTWISE


def _profiled(cell: Cell, data: Path, recording: Path) -> dict[str, dict[str, float]]:
    """Return milliseconds a step by group, and operators a step, for every part of a cell but the measure on dev."""
    clocks: list[_PartsClock] = []

    def new_clock(device: str) -> Clock:
        clocks.append(_PartsClock(device))
        return clocks[0]

    try:
        measure_cell(cell, data, recording, new_clock)
    finally:
        for clock in clocks:
            clock.close()
    scales = {"operators": 1 / cell.updates}
    return {
        part: {group: value * scales.get(group, 1e3 / cell.updates) for group, value in found.items()}
        for part, found in clocks[0].parts.items()
        if part != "objective"
    }


def _rows(family: str, competitor: str, found: dict[str, dict[str, float]]) -> list[list[str]]:
    groups = [*GROUPS, _ELEMENTWISE, _OUTSIDE]
    rows = []
    for part, values in found.items():
        whole = sum(values.get(group, 0.0) for group in groups)
        shares = [f"{100 * values.get(group, 0.0) / whole:.0f} %" for group in groups]
        rows.append([family, competitor, part, f"{whole:.1f}", *shares, f"{values['operators']:.0f}"])
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Profile, print the table, and write a line of JSON a cell."""
    parser = argparse.ArgumentParser("python -m benchmarks.cost.run profile", description=__doc__.splitlines()[0])
    add_options(parser, FAMILIES)
    parser.add_argument("--updates", type=int, nargs="+", default=[5], help="T (default: 5)")
    parser.add_argument(
        "--competitors", nargs="+", choices=COMPETITORS, default=[PLAIN, "ours-gradients", "plain-autograd"]
    )
    options = parser.parse_args(arguments)
    check_options(parser, options)
    torch.set_num_threads(options.threads)
    quiet()
    rows, lines = [], []
    with tempfile.TemporaryDirectory() as folder:
        recording = Path(folder, "recording.pt")
        for size in options.sizes:
            data = corpus_for(size, options.folder, options.data)
            for family in options.families:
                cell = Cell(
                    size, family, options.updates[0], PLAIN, threads=options.threads, max_tokens=options.max_tokens
                )
                record_group(cell, data, recording)
                for competitor in options.competitors:
                    found = _profiled(replace(cell, competitor=competitor), data, recording)
                    rows += _rows(family, competitor, found)
                    lines.append(json.dumps({"size": size, "family": family, "competitor": competitor, "parts": found}))
    if options.json:
        options.json.write_text("\n".join(lines) + "\n", encoding="utf-8")
    names = ["", "", "part", "ms a step", *GROUPS, _ELEMENTWISE, _OUTSIDE, "operators a step"]
    print(tabulate(rows, headers=names, tablefmt="github", disable_numparse=True))
    return 0
