"""Measures cells of an unrolled step one after the other and keeps their records; a run can be resumed."""

from __future__ import annotations

import argparse
import json
import signal
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from benchmarks.cost.cells import RECORD
from benchmarks.cost.group import PLAIN, Cell
from benchmarks.cost.options import corpus_for
from benchmarks.cost.processes import Watch, machine, run_cell
from benchmarks.cost.records import BadRecords, read_records
from fairseq_l2t.storage import write_atomically

__all__ = ["Bench", "run_report"]

_START_SECONDS = 4.0
"""Of a process, beside its updates; used by the progress bar alone."""

_UPDATE_SECONDS = {"tiny": 0.1, "small": 0.25, "iwslt": 3.0}
"""Of one update, by size of the student; used by the progress bar alone."""


class Bench:
    """Measures cells one after the other and keeps their records.

    Args:
        data: DATA_BIN for each size.
        watch: limits of every process.
        records: of an earlier run; their cells are not measured again.
        json_file: file that every new record is appended to, one a line; or None.
    """

    def __init__(self, data: dict[str, Path], watch: Watch, records: list[dict], json_file: Path | None) -> None:
        self._data, self._watch, self.records, self._json = data, watch, records, json_file
        self._recorded: tuple | None = None
        self._machine: dict | None = None

    def measure(self, cell: Cell) -> None:
        """Measure ``cell``, unless its record exists or an earlier repeat failed."""
        if self._is_known(cell):
            return
        too_much = self._expected_memory(cell)
        if too_much > self._watch.memory_limit:
            self._add(cell, {"status": f"would need about {too_much / 2**30:.3g} GiB"})
            return
        recording = self._watch.folder / "recording.pt"
        group = (cell.size, cell.family, cell.updates, cell.max_tokens)
        if self._recorded != group:
            self._recorded = None
            found = run_cell(replace(cell, competitor=RECORD), self._data[cell.size], recording, self._watch)
            if found["status"] != "ok":
                self._add(cell, {"status": f"no recording: {found['status']}"})
                return
            self._recorded = group
        self._add(cell, run_cell(cell, self._data[cell.size], recording, self._watch))

    def _add(self, cell: Cell, found: dict) -> None:
        if self._machine is None:
            self._machine = machine(cell.device)
        self.records.append({**cell.key, **found, "machine": self._machine})
        if self._json:
            with self._json.open("a", encoding="utf-8") as file:
                file.write(json.dumps(self.records[-1]) + "\n")

    def _is_known(self, cell: Cell) -> bool:
        for record in self._of_competitor(cell):
            if record["updates"] == cell.updates and (record["repeat"] == cell.repeat or record["status"] != "ok"):
                return True
        return False

    def _of_competitor(self, cell: Cell) -> list[dict]:
        wanted = {name: value for name, value in cell.key.items() if name not in ("updates", "repeat")}
        return [record for record in self.records if all(record.get(n) == v for n, v in wanted.items())]

    def _expected_memory(self, cell: Cell) -> float:
        """Return bytes in proportion to those of the largest smaller T; 0 if unknown or not in proportion to T."""
        if cell.competitor in (PLAIN, "ours-budget", "ours-graphs") or cell.device != "cpu":
            return 0.0
        smaller = [r for r in self._of_competitor(cell) if r["updates"] < cell.updates]
        if not smaller:
            return 0.0
        longest = max(record["updates"] for record in smaller)
        found = [record for record in smaller if record["updates"] == longest]
        if any(record["status"].startswith(("over ", "would need ")) for record in found):
            return self._watch.memory_limit * cell.updates / longest
        found = [record for record in found if record["status"] == "ok"]
        if not found:
            return 0.0
        before = statistics.median(record.get("before", 0) for record in found)
        peak = statistics.median(record["peak"] for record in found)
        return before + (peak - before) * cell.updates / longest


def run_report(options: argparse.Namespace, cells: list[Cell], tables: Callable, draw: Callable) -> int:
    """Measure ``cells`` or read ``--report``, print tables, draw the plot; return the exit code.

    Args:
        options: of `benchmarks.cost.options.add_options`.
        cells: to measure.
        tables: (records, clock) -> text.
        draw: (path, records, clock) -> None.

    An expected error is one line on stderr.
    """
    try:
        _report(options, cells, tables, draw)
    except (BadRecords, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the --json file holds what was measured, and --resume goes on", file=sys.stderr)
        return 130
    return 0


def _report(options: argparse.Namespace, cells: list[Cell], tables: Callable, draw: Callable) -> None:
    records = read_records(options.report) if options.report else _measured(options, cells)
    clock = "seconds" if options.clock == "wall" else "cpu_seconds"
    print(tables(records, clock))
    if options.plot:
        draw(options.plot, records, clock)


def _measured(options: argparse.Namespace, cells: list[Cell]) -> list[dict]:
    """Measure ``cells`` and return their records; with ``--resume`` some come from the file."""
    with _started(options) as bench:
        for cell in _progress(cells):
            bench.measure(cell)
    keys = [cell.key for cell in cells]
    return [record for record in bench.records if any(key.items() <= record.items() for key in keys)]


@contextmanager
def _started(options: argparse.Namespace) -> Iterator[Bench]:
    """Yield a `Bench` for the options; its processes work in a temporary folder."""
    records = []
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        if options.json.exists() and options.json.stat().st_size:
            if not options.resume:
                raise BadRecords(f"--json: {options.json} holds records; give --resume to go on, or another file")
            records = read_records(options.json)
        # An incomplete last line would spoil the next one.
        write_atomically(options.json, [f"{json.dumps(record)}\n".encode() for record in records])
    data = {size: corpus_for(size, options.folder, options.data) for size in options.sizes}
    with tempfile.TemporaryDirectory() as folder:
        watch = Watch(Path(folder), options.timeout, options.memory_limit, options.threads)
        # As Ctrl-C: the process of a cell must not outlive this one.
        before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        try:
            yield Bench(data, watch, records, options.json)
        finally:
            signal.signal(signal.SIGTERM, before)


def _progress(cells: list[Cell]) -> Iterator[Cell]:
    """Yield the cells under a bar of the seconds expected."""
    costs = [_START_SECONDS + cell.updates * _UPDATE_SECONDS[cell.size] for cell in cells]
    with tqdm(
        total=round(sum(costs)),
        unit="",
        file=sys.stderr,
        bar_format="{desc}{percentage:3.0f}%|{bar}| {elapsed}, {remaining} to go",
    ) as bar:
        for cell, cost in zip(cells, costs, strict=True):
            bar.set_description(f"{cell.size} {cell.family}, T = {cell.updates}, {cell.competitor}")
            yield cell
            bar.update(cost)
