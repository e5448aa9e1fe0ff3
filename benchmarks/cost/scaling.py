"""How time and memory of an unroll grow with T: everything kept, and within a budget.

    python benchmarks/scaling.py --json out/scaling.jsonl --plot out/scaling.png

Without a budget, memory grows with T and time a step stays; within one, memory stays, and updates are made again: how
many, beside the fewest that as many snapshots allow (Griewank & Walther 2000, "Algorithm 799: revolve", equation (1)).
Cells, limits and records are those of `benchmarks.unroll`.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Sequence
from math import comb
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

if str(Path(__file__).resolve().parent.parent) not in sys.path:
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.unroll import FAMILIES, add_options, check_options, run_report
from benchmarks.unroll_group import PLAIN
from benchmarks.unroll_report import Group, groups, log_axes, log_memory, machines, markdown, save, spread

__all__ = ["binomial_optimum", "draw", "main", "table"]

MODES = ("ours", "ours-gradients", "ours-budget")
_COLORS = {"lstm": "#0072B2", "fconv": "#D55E00", "transformer": "#009E73"}
_STYLES = {"ours": ":", "ours-gradients": "--", "ours-budget": "-"}
_MEBI = 2**20


def binomial_optimum(steps: int, snapshots: int) -> int:
    """Return the fewest updates that must be made again to go back through ``steps`` of them.

    ``snapshots`` states may stand at a time, the first one included. Griewank and Walther count the first sweep to the
    last update, ``steps - 1`` updates, which are made anyway.

    Raises:
        ValueError: no step or no snapshot.
    """
    if steps < 1 or snapshots < 1:
        raise ValueError(f"steps {steps}, snapshots {snapshots}; expected at least 1 of both")
    repetitions = 0
    while comb(snapshots + repetitions, snapshots) < steps:
        repetitions += 1
    evaluations = repetitions * steps - comb(snapshots + repetitions, repetitions - 1) if repetitions else 0
    return evaluations - (steps - 1)


def table(records: Sequence[dict], clock: str = "seconds") -> str:
    """Return a Markdown table: a row for each student, T and mode."""
    rows = [
        (f"{group.family}, {group.size}", [f"{group.updates:,}", name, *_row(group, name)])
        for group in groups(records, clock)
        for name in MODES
        if name in group.competitors
    ]
    columns = [
        "T",
        "kept",
        "ms a step",
        "over plain updates",
        "unroll ms",
        "reverse ms",
        "MiB above plain",
        "budget, MiB",
        "updates again, by the step",
        "fewest",
        "snapshots",
    ]
    return f"{machines(records)}\n\n{markdown('Scaling with T:', columns, rows)}"


def _row(group: Group, name: str) -> list[str]:
    if name not in group.ok:
        return [group.failed[name].replace("|", "/")] + [""] * 8
    record = group.ok[name][0]
    ratios, memory = group.ratios(name), group.memory(name)
    parts = [f"{1000 * statistics.median(group.per_step(name, part)):,.1f}" for part in ("unroll", "reverse")]
    slots = record.get("layout", {}).get("slots", 0)
    fewest = binomial_optimum(group.updates, slots) / group.updates if slots else 0.0
    return [
        spread([1000 * value for value in group.per_step(name)]),
        spread(ratios) if ratios else "",
        *parts,
        "" if memory is None else f"{memory / _MEBI:,.0f}",
        f"{record['budget'] / _MEBI:,.0f}" if "budget" in record else "",
        f"{record['recomputed'] / group.updates:.3f}",
        f"{fewest:.3f}",
        str(slots) if slots else "",
    ]


def draw(path: str | os.PathLike[str], records: Sequence[dict], clock: str = "seconds") -> None:
    """Draw milliseconds a step and memory above plain updates against T.

    Raises:
        OSError: the file could not be written.
    """
    found = groups(records, clock)
    families = list(dict.fromkeys(group.family for group in found))
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    time, memory = figure.subplots(1, 2)
    for family in families:
        mine = sorted((group for group in found if group.family == family), key=lambda group: group.updates)
        for name in MODES:
            known = [group for group in mine if name in group.ok and PLAIN in group.ok]
            style = {"color": _COLORS.get(family, "0.4"), "linestyle": _STYLES[name], "marker": "o", "markersize": 4}
            x = [group.updates for group in known]
            time.plot(x, [1000 * statistics.median(group.per_step(name)) for group in known], **style)
            memory.plot(x, [group.memory(name) / _MEBI for group in known], **style)
    ticks = [group.updates for group in found]
    log_axes(time, ticks, "ms a step", from_zero=True)
    log_axes(memory, ticks, "MiB above plain updates")
    time.set_title("Time of one unrolled step: flat where time is linear in T", loc="left", fontsize=10)
    memory.set_title("Peak resident memory", loc="left", fontsize=10)
    log_memory(memory)
    for budget in {record["budget"] for record in records if "budget" in record}:
        memory.axhline(budget / _MEBI, color="0.4", linewidth=0.8)
        memory.annotate("budget", (min(ticks), budget / _MEBI), (0, 3), textcoords="offset points", color="0.4")
    handles = [Line2D([], [], color=_COLORS.get(family, "0.4"), linewidth=2.5, label=family) for family in families]
    handles += [Line2D([], [], color="0.3", linestyle=style, label=name) for name, style in _STYLES.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=6, frameon=False)
    save(figure, path)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    return run_report(_parse(arguments), table, draw)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_options(parser, FAMILIES)
    parser.set_defaults(repeats=1, timeout=3600.0)
    parser.add_argument(
        "--updates", type=int, nargs="+", default=[20, 80, 320, 1000, 2000], help="T (default: 20 80 320 1000 2000)"
    )
    options = parser.parse_args(arguments)
    check_options(parser, options)
    options.long_repeats, options.competitors = options.repeats, (PLAIN, *MODES)
    return options


if __name__ == "__main__":
    sys.exit(main())
