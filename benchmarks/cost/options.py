"""Options that the benchmarks of an unrolled step share, and the corpora they name."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.cost.group import PLAIN, SIZES
from benchmarks.small_students import small_corpus
from fairseq_l2t.unroll.memory.budget import bytes_of
from toy_corpus.tiny import tiny_corpus

__all__ = ["COMPETITORS", "FAMILIES", "OURS", "PEERS", "add_options", "check_options", "corpus_for"]

OURS = ("ours", "ours-gradients", "ours-graphs", "ours-fast")
PEERS = ("plain-autograd", "higher", "torchopt")
COMPETITORS = (PLAIN, *OURS, "ours-budget", *PEERS, "torchopt-meta")
"""Ways to make T updates and to go back through them; the first only makes them."""

FAMILIES = ("lstm", "fconv", "transformer")


def corpus_for(size: str, folder: Path, data: Path | None = None) -> Path:
    """Return DATA_BIN for students of a size: ``data`` if given, else a corpus made under ``folder``."""
    if data is not None:
        return data
    return tiny_corpus(folder) if size == "tiny" else small_corpus(folder / "unroll_corpus")


def add_options(parser: argparse.ArgumentParser, families: Sequence[str]) -> None:
    """Add the options of every benchmark of an unrolled step; ``families`` are the default of ``--families``."""
    known = sorted({family for size in SIZES.values() for family in size})
    parser.add_argument(
        "--families",
        nargs="+",
        choices=known,
        default=list(families),
        metavar="FAMILY",
        help="default: " + ", ".join(families),
    )
    parser.add_argument(
        "--sizes", nargs="+", choices=list(SIZES), default=["small"], help="of students (default small)"
    )
    parser.add_argument("--max-tokens", type=int, default=1000, help="tokens of a batch (default %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="of every cell (default %(default)s)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch (default %(default)s)")
    parser.add_argument("--memory-budget", default="512M", help="of ours-budget (default %(default)s)")
    parser.add_argument("--graph-budget", default="4G", help="of ours-graphs (default %(default)s)")
    parser.add_argument(
        "--memory-limit", default="12G", help="a process that takes more is ended (default %(default)s)"
    )
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds for one cell (default %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write one JSON object a cell")
    parser.add_argument("--resume", action="store_true", help="keep the records of --json, measure the rest")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw the plot")
    parser.add_argument("--report", type=Path, metavar="FILE", help="tables and plot of an earlier run's --json")
    parser.add_argument(
        "--clock",
        choices=("wall", "cpu"),
        default="wall",
        help="seconds to report; cpu where other programs share the machine (default %(default)s)",
    )
    parser.add_argument("--data", type=Path, metavar="DATA_BIN", help="prepared data (default: a corpus is written)")
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path(tempfile.gettempdir(), "fairseq_l2t_benchmarks"),
        help="folder of that corpus (default %(default)s)",
    )


def check_options(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Refuse values out of range through ``parser``; turn memory sizes into bytes."""
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
