"""What does learning a teacher cost, in time and memory?

    python -m benchmarks.cost.run unroll --help

- ``unroll``: an unrolled step, forward and back, against plain updates and other libraries (``make bench``);
- ``scaling``: how time and memory grow with T, with and without a memory budget;
- ``profile``: where the time of a step goes, by PyTorch's profiler;
- ``objective``: what share of a teacher update the measure of expected BLEU takes;
- ``overhead``: what a teacher costs its student in ``fairseq-train``.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from benchmarks.cost import objective, profile_steps, scaling, student_overhead, unroll

BENCHMARKS = {
    "unroll": unroll.main,
    "scaling": scaling.main,
    "profile": profile_steps.main,
    "objective": objective.main,
    "overhead": student_overhead.main,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one benchmark and return its exit code."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.cost.run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("benchmark", choices=list(BENCHMARKS), help="has options of its own: BENCHMARK --help")
    parser.add_argument("options", nargs=argparse.REMAINDER, help="options of the benchmark")
    chosen = parser.parse_args(arguments)
    return BENCHMARKS[chosen.benchmark](chosen.options)


if __name__ == "__main__":
    sys.exit(main())
