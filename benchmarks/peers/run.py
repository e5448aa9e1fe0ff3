"""Which other libraries differentiate through fairseq training, and are they right?

    python -m benchmarks.peers.run --optimizers momentum --json peers.jsonl

Every student family of `fairseq_l2t.testing.tiny_students` goes to every peer (plain PyTorch, ``higher``, TorchOpt) as
a user of the peer would write it: stock fairseq, T real updates, a measure on dev pairs. Each cell runs in a process of
its own. Peers that are not installed are shown as such; ``pip install -e ".[peers]"`` installs them.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from importlib import metadata, util
from pathlib import Path

from tqdm import tqdm

from benchmarks.peers.cells import Cell, measure_cell, quiet
from benchmarks.peers.report import table
from benchmarks.peers.task import RULES
from benchmarks.peers.unrolls import INSTALL, UNROLLS, module_of
from fairseq_l2t.testing.tiny_students import FAMILIES
from toy_corpus.tiny import tiny_corpus

PEERS = ("plain", "higher", "torchopt-meta", "torchopt-functional", "ours")
_EVERY_PEER = (*UNROLLS, "ours")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the cells asked for and print the table."""
    options = _parse(arguments)
    data = tiny_corpus(options.folder)
    wanted = [
        (family, optimizer, peer)
        for family in options.families
        for optimizer in options.optimizers
        for peer in options.peers
    ]
    cells = []
    with open(options.json, "w", encoding="utf-8") if options.json else nullcontext() as lines:
        for family, optimizer, peer in _progress(wanted):
            cell = _run_cell(
                data, family, optimizer, peer, steps=options.steps, mended=options.mended, timeout=options.timeout
            )
            cells.append(cell)
            if lines:
                print(json.dumps(cell.as_dict()), file=lines, flush=True)
    print(table(cells))
    return 0


def _run_cell(data: Path, family: str, optimizer: str, peer: str, *, steps: int, mended: bool, timeout: float) -> Cell:
    """Return a cell measured in a process of its own; an error of the peer becomes its verdict."""
    cell = Cell(family, optimizer, peer, mended, versions=_versions(peer))
    module = module_of(peer)
    if module is not None and util.find_spec(module) is None:
        cell.verdict, cell.message = "not installed", INSTALL[module]
        return cell
    errors: list[BaseException] = []
    # A process forked from one that has imported everything starts in a moment, and knows nothing of other cells.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([measure_cell.__module__])
    with context.Pool(1, initializer=quiet) as pool:
        result = pool.apply_async(
            measure_cell,
            (data, family, optimizer, peer),
            {"steps": steps, "mended": mended},
            error_callback=errors.append,
        )
        result.wait(timeout)
        if not result.ready():
            cell.verdict = f"no answer within {timeout:g} s"
        elif result.successful():
            versions, cell = cell.versions, result.get()
            cell.versions = versions
    if errors:
        first_line = str(errors[0]).split("\n")[0]
        cell.message = f"{type(errors[0]).__name__}: {first_line}"
        cell.verdict = f"raises: {first_line}"
    return cell


def _progress(wanted: list[tuple[str, str, str]]) -> Iterator[tuple[str, str, str]]:
    with tqdm(wanted, unit="cell", file=sys.stderr) as bar:
        for cell in bar:
            bar.set_description(" ".join(cell))
            yield cell


def _versions(peer: str) -> dict[str, str]:
    names = ["torch", "fairseq", *filter(None, [module_of(peer)])]
    installed = {distribution.metadata["Name"] for distribution in metadata.distributions()}
    return {name: metadata.version(name) for name in names if name in installed}


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks.peers.run", description=__doc__.splitlines()[0])
    parser.add_argument("--families", nargs="+", choices=list(FAMILIES), default=list(FAMILIES), metavar="FAMILY")
    parser.add_argument("--optimizers", nargs="+", choices=list(RULES), default=list(RULES))
    parser.add_argument("--peers", nargs="+", choices=_EVERY_PEER, default=list(PEERS))
    parser.add_argument("--steps", type=int, default=3, help="student updates (default: 3)")
    parser.add_argument(
        "--mended", action="store_true", help="with our corrections of fairseq's modules around the peers"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write one JSON line for each cell")
    parser.add_argument("--timeout", type=float, default=300.0, help="seconds for one cell (default: 300)")
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path(tempfile.gettempdir(), "fairseq_l2t_benchmarks"),
        help="folder of the tiny corpus, which is made if it is absent (default: %(default)s)",
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
