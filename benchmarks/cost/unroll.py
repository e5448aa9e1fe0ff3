"""What a step of an unroll costs: ours, plain autograd, higher and TorchOpt against the student's own training.

    make bench
    python benchmarks/unroll.py --json out/unroll.jsonl --plot out/unroll.png

For each student family and T: seconds of T plain updates by fairseq's own Trainer, and of T updates and the way back
through them by every competitor, with the same batches, optimizer and seed; the memory of each above the plain
updates; and how far its hypergradient is from that of our exact mode. Every cell has a process of its own, and repeats
take turns among the competitors. A run that was interrupted goes on with ``--resume``.
"""

from __future__ import annotations

import argparse
import json
import signal
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

if str(Path(__file__).resolve().parent.parent) not in sys.path:
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.unroll_cells import RECORD
from benchmarks.unroll_group import PLAIN, SIZES, Cell
from benchmarks.unroll_process import Watch, machine, run_cell
from benchmarks.unroll_records import BadRecords, read_records
from benchmarks.unroll_report import draw, tables
from fairseq_l2t.storage import write_atomically
from fairseq_l2t.unroll.memory.budget import bytes_of
from toy_corpus.tiny import CorpusSettings, PrepareSettings, prepare, tiny_corpus, write_corpus

__all__ = [
    "COMPETITORS",
    "FAMILIES",
    "Bench",
    "add_options",
    "check_options",
    "corpus_for",
    "main",
    "measured",
    "report",
    "run_report",
    "wanted_cells",
]

OURS = ("ours", "ours-gradients", "ours-graphs", "ours-fast")
PEERS = ("plain-autograd", "higher", "torchopt")
COMPETITORS = (PLAIN, *OURS, "ours-budget", *PEERS, "torchopt-meta")
FAMILIES = ("lstm", "fconv", "transformer")
_START_SECONDS = 4.0
"""Of a process, beside its updates; for the progress bar, as the figures below."""
_UPDATE_SECONDS = {"tiny": 0.1, "small": 0.25, "iwslt": 3.0}


class Bench:
    """Measures cells one after the other and keeps their records.

    Args:
        data: DATA_BIN for each size.
        watch: limits of every process.
        records: of an earlier run; cells that stand there are not measured again.
        json_file: takes every new record, one a line; or None.
    """

    def __init__(self, data: dict[str, Path], watch: Watch, records: list[dict], json_file: Path | None) -> None:
        self._data, self._watch, self.records, self._json = data, watch, records, json_file
        self._recorded: tuple | None = None
        self._machine: dict | None = None

    def measure(self, cell: Cell) -> None:
        """Measure ``cell``, unless that has been done, or its first repeat has failed already."""
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
        """Bytes, in proportion to the largest smaller T; 0 where nothing is known or memory is not in proportion."""
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


def wanted_cells(options: argparse.Namespace) -> list[Cell]:
    """Return the cells asked for, repeats taking turns among the competitors of a group."""
    common = {
        "device": options.device,
        "threads": options.threads,
        "max_tokens": options.max_tokens,
        "budget": options.memory_budget,
        "graph_budget": options.graph_budget,
    }
    return [
        Cell(size, family, updates, competitor, repeat, **common)
        for size in options.sizes
        for family in options.families
        for updates in sorted(options.updates)
        for repeat in range(options.repeats if updates == min(options.updates) else options.long_repeats)
        for competitor in options.competitors
        if size != "iwslt" or updates == min(options.updates)
    ]


def corpus_for(size: str, folder: Path, data: Path | None = None) -> Path:
    """Return DATA_BIN for students of a size: ``data``, or 4,000 pairs with 1,008 symbols, made under ``folder``."""
    if data is not None:
        return data
    if size == "tiny":
        return tiny_corpus(folder)
    base = folder / "unroll_corpus"
    done = base / "data" / "bin"
    if (done / "prepared.json").exists():
        return done
    write_corpus(base / "raw", CorpusSettings(train=4000, dev=400, test=20, seed=1, noise=0.3))
    return Path(prepare(base / "raw", base / "data", PrepareSettings(vocabulary=1000)))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    return run_report(_parse(arguments), tables, draw)


def run_report(options: argparse.Namespace, tables: Callable, draw: Callable) -> int:
    """Do `report` and return the exit code: what went wrong is one line."""
    try:
        report(options, wanted_cells(options), tables, draw)
    except (BadRecords, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; what was measured stands in the --json file, and --resume goes on", file=sys.stderr)
        return 130
    return 0


def report(options: argparse.Namespace, cells: list[Cell], tables: Callable, draw: Callable) -> None:
    """Measure ``cells``, or read an earlier run's records; print ``tables`` of them and ``draw`` them."""
    records = read_records(options.report) if options.report else measured(options, cells)
    clock = "seconds" if options.clock == "wall" else "cpu_seconds"
    print(tables(records, clock))
    if options.plot:
        draw(options.plot, records, clock)


def measured(options: argparse.Namespace, cells: list[Cell]) -> list[dict]:
    """Measure ``cells`` and return their records, those that stood in the file with ``--resume`` included."""
    with _started(options) as bench:
        for cell in _progress(cells):
            bench.measure(cell)
    keys = [cell.key for cell in cells]
    return [record for record in bench.records if any(key.items() <= record.items() for key in keys)]


@contextmanager
def _started(options: argparse.Namespace) -> Iterator[Bench]:
    """A `Bench` for options of `add_options`, in a folder for its processes."""
    records = []
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        if options.json.exists() and options.json.stat().st_size:
            if not options.resume:
                raise BadRecords(f"--json: {options.json} holds records; give --resume to go on, or another file")
            records = read_records(options.json)
        # A line that was not written to its end would take the next one with it.
        write_atomically(options.json, [f"{json.dumps(record)}\n".encode() for record in records])
    data = {size: corpus_for(size, options.folder, options.data) for size in options.sizes}
    with tempfile.TemporaryDirectory() as folder:
        watch = Watch(Path(folder), options.timeout, options.memory_limit, options.threads)
        # As an interruption by Ctrl-C: the process of a cell must not live on.
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


def add_options(parser: argparse.ArgumentParser, families: Sequence[str]) -> None:
    """Add what every benchmark of unrolls takes."""
    known = sorted({family for size in SIZES.values() for family in size})
    parser.add_argument(
        "--families",
        nargs="+",
        choices=known,
        default=list(families),
        metavar="FAMILY",
        help="default: " + ", ".join(families),
    )
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=["small"])
    parser.add_argument("--max-tokens", type=int, default=1000, help="size of a batch (default %(default)s)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--memory-budget", default="512M", help="of ours-budget (default %(default)s)")
    parser.add_argument("--graph-budget", default="4G", help="of ours-graphs (default %(default)s)")
    parser.add_argument(
        "--memory-limit", default="12G", help="a process that takes more is ended (default %(default)s)"
    )
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds for one cell (default %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write one JSON object a cell")
    parser.add_argument("--resume", action="store_true", help="do not measure again what stands in the --json file")
    parser.add_argument("--plot", type=Path, metavar="FILE.png")
    parser.add_argument("--report", type=Path, metavar="FILE", help="tables and plot of an earlier run's --json")
    parser.add_argument(
        "--clock",
        choices=("wall", "cpu"),
        default="wall",
        help="cpu: report the processor's seconds, where others share the machine",
    )
    parser.add_argument("--data", type=Path, metavar="DATA_BIN", help="prepared data (default: a corpus is written)")
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path(tempfile.gettempdir(), "fairseq_l2t_benchmarks"),
        help="where that corpus is made, or found",
    )


def check_options(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Refuse what cannot be measured; sizes become bytes."""
    for name in ("memory_budget", "graph_budget", "memory_limit"):
        try:
            setattr(options, name, bytes_of(getattr(options, name), f"--{name.replace('_', '-')}"))
        except ValueError as error:
            parser.error(str(error))
    for name in ("max_tokens", "repeats", "threads"):
        if getattr(options, name) < 1:
            parser.error(f"--{name.replace('_', '-')}: {getattr(options, name)}; expected at least 1")
    if min(options.updates) < 1:
        parser.error(f"--updates: {options.updates}; expected numbers of at least 1")
    for size, family in ((size, family) for size in options.sizes for family in options.families):
        if family not in SIZES[size]:
            parser.error(f"--families: {family}; expected, of size {size}, names from {', '.join(SIZES[size])}")
    if options.resume and not options.json:
        parser.error("--resume: needs --json FILE")


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_options(parser, FAMILIES)
    parser.add_argument(
        "--updates", type=int, nargs="+", help="T (default: 20 80, with --full 320 too; size iwslt: the smallest only)"
    )
    parser.add_argument(
        "--long-repeats",
        type=int,
        metavar="N",
        help="repeats of every T but the smallest (default: 1, with --full as --repeats)",
    )
    parser.add_argument(
        "--competitors",
        nargs="+",
        choices=COMPETITORS,
        help="default: all but ours-budget and torchopt-meta, with --full these too",
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--full", action="store_true", help="sizes small and iwslt, T = 320 too; hours")
    length.add_argument("--quick", action="store_true", help="one repeat of T = 2: does everything run?")
    options = parser.parse_args(arguments)
    if options.full:
        options.sizes = ["small", "iwslt"]
    if options.quick:
        options.repeats = 1
    options.updates = options.updates or ([2] if options.quick else [20, 80, 320] if options.full else [20, 80])
    options.long_repeats = options.long_repeats or (options.repeats if options.full else 1)
    options.competitors = options.competitors or (COMPETITORS if options.full else (PLAIN, *OURS, *PEERS))
    check_options(parser, options)
    return options


if __name__ == "__main__":
    sys.exit(main())
