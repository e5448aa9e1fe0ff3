"""Are the hypergradients right, for every student family under every optimizer?

    python -m benchmarks.exactness.run --jobs 2 --json exactness.jsonl

A cell is one student on real batches, with dropout, a schedule and clipping (`fairseq_l2t.testing.exactness`). Our
hypergradient is compared with float64 finite differences along random directions and with plain autograd through the
whole unroll, and float32 with float64. Unsupported options must be refused by name (`fairseq_l2t.testing.refusals`).
The exit code is 1 if a cell is over its bound, or an unsupported option is accepted.
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
from tqdm import tqdm

from benchmarks.exactness.report import tables
from fairseq_l2t.testing.exactness import QUICK_CELLS, ROWS, Cell, all_cells, measure
from fairseq_l2t.testing.refusals import REFUSALS, refusal
from fairseq_l2t.testing.tiny_students import OPTIMIZERS
from toy_corpus.tiny import tiny_corpus


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the tables, return the exit code."""
    options = _parse(arguments)
    _quiet()
    wanted = QUICK_CELLS if options.quick else all_cells(options.families, options.optimizers, full=options.full)
    done = _read(options.json)
    left = [cell for cell in wanted if cell not in done]
    refused: dict[str, str | None] = {}
    if left or not options.no_refusals:
        with tempfile.TemporaryDirectory() as scratch:
            data = tiny_corpus(Path(scratch))
            for record in _measured(data, left, options.jobs):
                done[_cell_of(record)] = record
                if options.json is not None:
                    with options.json.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(record) + "\n")
            if not options.no_refusals:
                refused = {name: refusal(data, name) for name in REFUSALS}
    records = [done[cell] for cell in wanted]
    print(tables(records))
    for name, message in refused.items():
        print(f"refused: {name}: {message}" if message else f"ACCEPTED, must be refused: {name}")
    return int(not all(record.get("good") for record in records) or None in refused.values())


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks.exactness.run", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--families", nargs="+", choices=ROWS, default=ROWS, metavar="NAME", help=f"default all: {', '.join(ROWS)}"
    )
    parser.add_argument(
        "--optimizers",
        nargs="+",
        choices=list(OPTIMIZERS),
        default=list(OPTIMIZERS),
        metavar="NAME",
        help=f"default all: {', '.join(OPTIMIZERS)}",
    )
    extent = parser.add_mutually_exclusive_group()
    extent.add_argument("--full", action="store_true", help="every combination of clipping, --update-freq and schedule")
    extent.add_argument("--quick", action="store_true", help=f"the {len(QUICK_CELLS)} cells of the tests alone")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes of one thread each (default 1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="records, one a line; cells found there are kept")
    parser.add_argument("--no-refusals", action="store_true", help="do not check that unsupported options are refused")
    options = parser.parse_args(arguments)
    if options.jobs < 1:
        parser.error(f"--jobs: {options.jobs}; expected at least 1")
    return options


def _cell_of(record: dict) -> Cell:
    return Cell(*(record[name] for name in ("family", "optimizer", "clipping", "update_freq", "schedule")))


def _read(path: Path | None) -> dict[Cell, dict]:
    if path is None or not path.exists():
        return {}
    records = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return {_cell_of(record): record for record in records if "error" not in record}


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
    except (ValueError, ArithmeticError, RuntimeError) as error:  # a cell that fails is a result; the others go on
        return {**vars(cell), "good": False, "error": f"{type(error).__name__}: {error}"}


if __name__ == "__main__":
    sys.exit(main())
