"""What does a step of an unroll cost? Ours, plain autograd, higher and TorchOpt against the student's own training.

    make bench
    python -m benchmarks.cost.run unroll --json unroll.jsonl --plot unroll.png

For each student family and T: the seconds of T plain updates by fairseq's own Trainer, and of T updates and the way
back through them by every competitor, with the same batches, optimizer and seed; the memory of each above the plain
updates; and the error of its hypergradient against our exact mode. Every cell has a process of its own, and repeats
take turns among the competitors. ``--resume`` goes on with an interrupted run.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from benchmarks.cost.bench import run_report
from benchmarks.cost.group import PLAIN, Cell
from benchmarks.cost.options import COMPETITORS, FAMILIES, OURS, PEERS, add_options, check_options
from benchmarks.cost.plots import draw_unroll
from benchmarks.cost.report import tables

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line ``arguments``."""
    options = _parse(arguments)
    return run_report(options, _wanted_cells(options), tables, draw_unroll)


def _wanted_cells(options: argparse.Namespace) -> list[Cell]:
    """Return the cells asked for; the competitors of a group take turns from repeat to repeat."""
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


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks.cost.run unroll", description=__doc__.splitlines()[0])
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
