"""How long must a window be? Truncated against full hypergradients, and the adjoint's norm backwards in time.

    python -m benchmarks.truncation.run --json truncation.jsonl --plot truncation.png

A student of each family lives under a new teacher. At several points of its life T updates are unrolled, and one sweep
back from the measure at their end gives the share of every update in the hypergradient. Two comparisons follow:

- truncation: the last W updates alone against all T, for the same measure at the end;
- short horizon: a window of the *first* W updates, ended by a measure of its own, against the share of the same updates
  in the measure T updates later. It shows whether short windows lead a teacher in the right direction.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from tqdm import tqdm

from benchmarks.small_students import CROSS_ENTROPY_UPDATES, FAMILIES, small_corpus
from benchmarks.truncation.cells import Life, horizon_lengths, measure_life
from benchmarks.truncation.report import draw, tables
from fairseq_l2t.plugin.student.dev_measures import OBJECTIVES

_SHORTEST_LIFE = 1200


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, or read an earlier run's records; print tables and draw the plot; return the exit code."""
    options = _parse(arguments)
    records = _read(options.report) if options.report else _measured(options)
    print(tables(records))
    if options.plot:
        draw(options.plot, records)
    return 0


def _measured(options: argparse.Namespace) -> list[dict]:
    logging.getLogger("fairseq").setLevel(logging.WARNING)
    if options.json:
        options.json.write_text("", encoding="utf-8")
    if options.data:
        return _run(options, options.data)
    with tempfile.TemporaryDirectory() as folder:
        return _run(options, small_corpus(Path(folder)))


def _run(options: argparse.Namespace, data: Path) -> list[dict]:
    records = []
    length = max(_SHORTEST_LIFE, CROSS_ENTROPY_UPDATES + max(options.starts) + options.updates)
    with tqdm(total=_steps_in_all(options), unit="step", file=sys.stderr, mininterval=1) as progress:
        for seed in options.seeds:
            for family in options.families:
                progress.set_description(f"{family}, seed {seed}")
                life = Life(data, family, seed, options.updates, options.starts, options.objective, length)
                for record in measure_life(life, progress.update):
                    records.append(record)
                    if options.json:
                        with options.json.open("a", encoding="utf-8") as file:
                            file.write(json.dumps(record) + "\n")
    return records


def _steps_in_all(options: argparse.Namespace) -> int:
    life = CROSS_ENTROPY_UPDATES + max(options.starts) + options.updates
    sweeps = len(options.starts) * len(options.objective) * (options.updates + sum(horizon_lengths(options.updates)))
    return len(options.families) * len(options.seeds) * (life + sweeps)


def _read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks.truncation.run", description=__doc__.splitlines()[0])
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    parser.add_argument("--updates", type=int, default=320, help="T, updates of the full window (default %(default)s)")
    parser.add_argument(
        "--starts",
        type=int,
        nargs="+",
        default=[0, 400, 800],
        help="first updates of windows, counted after the cross-entropy ones (default 0 400 800)",
    )
    parser.add_argument("--objective", nargs="+", choices=OBJECTIVES[:2], default=["inverse-perplexity", "likelihood"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2], help="seeds of the students (default 1 2)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write one JSON object a line")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="draw the plot")
    parser.add_argument("--report", type=Path, metavar="FILE", help="table and plot of an earlier run's --json")
    parser.add_argument("--data", type=Path, metavar="DATA_BIN", help="prepared data (default: a corpus is written)")
    options = parser.parse_args(arguments)
    starts = sorted(options.starts)
    if options.updates < 1:
        parser.error(f"--updates: {options.updates}; expected at least 1")
    if starts[0] < 0 or any(later - start < options.updates for start, later in pairwise(starts)):
        parser.error(f"--starts: {options.starts}; expected numbers of at least 0 that are --updates or more apart")
    return options


if __name__ == "__main__":
    sys.exit(main())
