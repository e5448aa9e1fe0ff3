"""Is the student of our unroll the one fairseq trains, for every student family under every optimizer and both losses?

    python -m benchmarks.parity.run --json parity.jsonl

A cell (`fairseq_l2t.testing.parity`) is one student on real batches in float32, with dropout, a schedule, clipping, two
micro-batches an update and the end of an epoch on the way. fairseq's own Trainer makes the updates, our unroll makes
them, and the parameters are compared. The exit code is 1 if they differ by more than the bound, or if a cell did not
move, clip or cross the end of an epoch.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from benchmarks.parity.report import tables
from fairseq_l2t.testing.parity import QUICK_CELLS, Cell, all_cells, measure
from fairseq_l2t.testing.tiny_students import FAMILIES, OPTIMIZERS
from toy_corpus.tiny import tiny_corpus


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the tables, return the exit code."""
    options = _parse(arguments)
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    done = _read(options.json)
    wanted = QUICK_CELLS if options.quick else all_cells(options.families, options.optimizers, options.updates)
    left = [cell for cell in wanted if cell not in done]
    with tempfile.TemporaryDirectory() as scratch:
        data = tiny_corpus(Path(scratch)) if left else Path(scratch)
        for cell in tqdm(left, desc="cells", unit="cell"):
            done[cell] = _measure(data, cell)
            if options.json is not None:
                with options.json.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(done[cell]) + "\n")
    records = [done[cell] for cell in wanted]
    print(tables(records))
    return int(not all(record["good"] for record in records))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks.parity.run", description=__doc__.splitlines()[0])
    for option, names in (("--families", list(FAMILIES)), ("--optimizers", list(OPTIMIZERS))):
        parser.add_argument(
            option, nargs="+", choices=names, default=names, metavar="NAME", help=f"default all: {', '.join(names)}"
        )
    parser.add_argument(
        "--updates", type=int, default=20, metavar="K", help="updates (default 20); an epoch of the corpus is 13"
    )
    parser.add_argument("--quick", action="store_true", help=f"the {len(QUICK_CELLS)} cells of the tests alone")
    parser.add_argument("--json", type=Path, metavar="FILE", help="records, one a line; cells found there are kept")
    options = parser.parse_args(arguments)
    if options.updates < 3:
        parser.error(f"--updates: {options.updates}; expected at least 3")
    return options


def _read(path: Path | None) -> dict[Cell, dict]:
    if path is None or not path.exists():
        return {}
    records = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    return {Cell(*(record[name] for name in ("family", "optimizer", "loss", "updates"))): record for record in records}


def _measure(data: Path, cell: Cell) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        try:
            return measure(data, cell, Path(folder)).as_json()
        except (ValueError, ArithmeticError, RuntimeError) as error:  # a cell that fails is a result; the others go on
            return {**vars(cell), "good": False, "error": f"{type(error).__name__}: {error}"}


if __name__ == "__main__":
    sys.exit(main())
