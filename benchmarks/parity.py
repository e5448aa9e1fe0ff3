"""Is the student of our unroll the one fairseq trains? Every student family under every optimizer, with both losses.

    python benchmarks/parity.py --json parity.jsonl

A cell (`parity_cells`) is one student on real batches in float32, with dropout, a schedule, clipping, two micro-batches
an update and the end of an epoch on the way: fairseq's own Trainer makes the updates, our unroll makes them, and the
parameters are compared. Exit code 1 if they are further apart than the bound, or a cell did not put it to the test.
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
from tabulate import tabulate
from tqdm import tqdm

from benchmarks.exactness_cells import check_names
from benchmarks.parity_cells import BOUND, LOSSES, Cell, all_cells, measure
from fairseq_l2t.testing.tiny_students import FAMILIES, OPTIMIZERS
from toy_corpus.tiny import tiny_corpus

TITLES = {
    "cross_entropy": "cross-entropy",
    "dynamic": "dynamic loss under a teacher, after one update of cross-entropy",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the tables, return the exit code."""
    options = _parse(arguments)
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    done = _read(options.json)
    wanted = all_cells(options.families, options.optimizers, options.updates)
    left = [cell for cell in wanted if cell not in done]
    with tempfile.TemporaryDirectory() as scratch:
        data = tiny_corpus(Path(scratch)) if left else None
        for cell in tqdm(left, desc="cells", unit="cell"):
            done[cell] = _measure(data, cell)
            if options.json is not None:
                with options.json.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(done[cell]) + "\n")
    records = [done[cell] for cell in wanted]
    for loss in LOSSES:
        _print_table(loss, [record for record in records if record["loss"] == loss], options)
    return int(not all(record["good"] for record in records))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Updates by the unroll against updates by fairseq's own Trainer.")
    parser.add_argument("--families", nargs="+", default=list(FAMILIES), metavar="NAME", help=", ".join(FAMILIES))
    parser.add_argument("--optimizers", nargs="+", default=list(OPTIMIZERS), metavar="NAME", help=", ".join(OPTIMIZERS))
    parser.add_argument("--updates", type=int, default=20, metavar="K", help="updates; from 14 on with an epoch's end")
    parser.add_argument("--json", type=Path, metavar="FILE", help="a line a cell; those there are not redone")
    options = parser.parse_args(arguments)
    try:
        check_names(options.families, options.optimizers)
    except ValueError as error:
        parser.error(str(error))
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
        except (ValueError, ArithmeticError, RuntimeError) as error:  # a cell that fails is a result, not the end
            return {**vars(cell), "good": False, "error": f"{type(error).__name__}: {error}"}


def _print_table(loss: str, records: list[dict], options: argparse.Namespace) -> None:
    print(
        f"\nLargest difference after {options.updates} updates, {TITLES[loss]} (bound {BOUND:g}; 0: every bit is "
        "equal):\n"
    )
    shown = {(record["family"], record["optimizer"]): _shown(record) for record in records}
    rows = [[family, *(shown[family, optimizer] for optimizer in options.optimizers)] for family in options.families]
    print(tabulate(rows, ["student", *options.optimizers], tablefmt="github", disable_numparse=True))
    whole = [record for record in records if "error" not in record]
    if whole:
        worst = max(whole, key=lambda record: record["difference"])
        moved, clipped = (min(record[name] for record in whole) for name in ("moved", "clipped"))
        print(
            f"\n{len(records)} cells: {sum(record['is_equal'] for record in whole)} equal to the bit, "
            f"{sum(not record['good'] for record in records)} bad. Worst: {worst['difference']:.1e} "
            f"({worst['family']}, {worst['optimizer']}). Smallest movement: {moved:.1e} of a tensor's norm; "
            f"smallest share of clipped updates: {clipped:.0%}."
        )
    for record in records:
        if not record["good"]:
            print(f"BAD: {json.dumps(record)}")


def _shown(record: dict) -> str:
    if "error" in record:
        return "failed"
    return "0" if record["is_equal"] else f"{record['difference']:.0e}"


if __name__ == "__main__":
    sys.exit(main())
