"""Are the hypergradients right? Every student family under every optimizer, against two other ways to find them.

    python benchmarks/exactness.py --jobs 2 --json exactness.jsonl

A cell is one student on real batches, with dropout, a schedule and clipping (`exactness_cells`): the relative error of
our hypergradient against float64 finite differences along random directions, and against plain autograd through the
whole unroll; and how far the one in float32 is from it. What is refused must be refused by name (`refusals`).
Exit code 1 if a cell is over its bound, or something that should be refused is taken.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import sys
import tempfile
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from tabulate import tabulate
from tqdm import tqdm

from benchmarks.exactness_cells import BOUND, BOUND_FLOAT32, ROWS, Cell, all_cells, check_names, measure
from benchmarks.refusals import REFUSALS, refusal
from fairseq_l2t.testing.tiny_students import OPTIMIZERS
from toy_corpus.tiny import tiny_corpus

MEASURES = {
    "differences": f"against float64 finite differences (bound {BOUND:g})",
    "autograd": f"against plain autograd, float64 (bound {BOUND:g})",
    "float32": f"float32 against float64 along the same path (bound {BOUND_FLOAT32:g})",
    "drift": "float32 against float64 from the same start (no bound: after some roundings, another student)",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the tables, return the exit code."""
    options = _parse(arguments)
    done = _read(options.json)
    wanted = all_cells(options.families, options.optimizers, full=options.full)
    left = [cell for cell in wanted if _key(vars(cell)) not in done]
    refused: dict[str, str | None] = {}
    if left or not options.no_refusals:
        with tempfile.TemporaryDirectory() as scratch:
            data = tiny_corpus(Path(scratch))
            for record in _measured(data, left, options.jobs):
                done[_key(record)] = record
                if options.json is not None:
                    with options.json.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(record) + "\n")
            if not options.no_refusals:
                refused = {name: refusal(data, name) for name in REFUSALS}
    records = [done[_key(vars(cell))] for cell in wanted]
    _print_tables(records, options)
    for name, message in refused.items():
        print(f"refused: {name}: {message}" if message else f"TAKEN, should be refused: {name}")
    return int(not all(record.get("good") for record in records) or None in refused.values())


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Exactness of hypergradients, for every student and optimizer.")
    parser.add_argument("--families", nargs="+", default=list(ROWS), metavar="NAME", help=", ".join(ROWS))
    parser.add_argument("--optimizers", nargs="+", default=list(OPTIMIZERS), metavar="NAME", help=", ".join(OPTIMIZERS))
    parser.add_argument("--full", action="store_true", help="every combination of clipping, --update-freq and schedule")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes of one thread each")
    parser.add_argument("--json", type=Path, metavar="FILE", help="a line a cell; those there are not redone")
    parser.add_argument("--no-refusals", action="store_true", help="leave out what must be refused")
    options = parser.parse_args(arguments)
    try:
        check_names(options.families, options.optimizers)
    except ValueError as error:
        parser.error(str(error))
    if options.jobs < 1:
        parser.error(f"--jobs: {options.jobs}; expected at least 1")
    return options


def _key(record: dict) -> tuple:
    return tuple(record[name] for name in ("family", "optimizer", "clipping", "update_freq", "schedule"))


def _read(path: Path | None) -> dict[tuple, dict]:
    if path is None or not path.exists():
        return {}
    records = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return {_key(record): record for record in records if "error" not in record}


def _measured(data: Path, cells: list[Cell], jobs: int) -> Iterable[dict]:
    if not cells:
        return
    with multiprocessing.get_context("spawn").Pool(jobs, _quiet) as pool:
        results = pool.imap_unordered(_measure, [(data, cell) for cell in cells])
        yield from tqdm(results, total=len(cells), desc="cells", unit="cell")


def _quiet() -> None:
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")


def _measure(task: tuple[Path, Cell]) -> dict:
    data, cell = task
    try:
        return measure(data, cell).as_json()
    except (ValueError, ArithmeticError, RuntimeError) as error:  # a cell that fails is a result, not the end
        return {**vars(cell), "good": False, "error": f"{type(error).__name__}: {error}"}


def _print_tables(records: list[dict], options: argparse.Namespace) -> None:
    whole = [record for record in records if "error" not in record]
    for measure_name, title in MEASURES.items():
        print(f"\nLargest relative error {title}:\n")
        rows = [
            [family, *(_worst(whole, family, optimizer, measure_name) for optimizer in options.optimizers)]
            for family in options.families
        ]
        print(tabulate(rows, ["student", *options.optimizers], tablefmt="github", disable_numparse=True))
        if whole:
            worst = max(whole, key=lambda record, name=measure_name: record[name])
            print(f"\nWorst: {worst[measure_name]:.1e}, {', '.join(map(str, _key(worst)))}")
    failed = [record for record in records if not record.get("good")]
    unresolved = sum(record["unresolved"] for record in whole)
    print(
        f"\n{len(records)} cells, {len(failed)} over a bound or failed; {unresolved} directions were not resolved "
        "by differences and replaced."
    )
    for record in failed:
        print(f"FAILED: {json.dumps(record)}")


def _worst(records: list[dict], family: str, optimizer: str, name: str) -> str:
    values = [record[name] for record in records if (record["family"], record["optimizer"]) == (family, optimizer)]
    return f"{max(values):.0e}" if values else "failed"


if __name__ == "__main__":
    sys.exit(main())
