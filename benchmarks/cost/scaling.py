"""How do time and memory of an unroll grow with T, with everything kept and within a memory budget?

    python -m benchmarks.cost.run scaling --json scaling.jsonl --plot scaling.png

Without a budget, memory grows with T and the time of a step is constant. Within one, memory is constant and updates are
made again; the table shows how many, beside the fewest that as many snapshots allow. Cells, limits and records are
those of `benchmarks.cost.unroll`.
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from benchmarks.cost.bench import run_report
from benchmarks.cost.group import PLAIN, Cell
from benchmarks.cost.options import FAMILIES, add_options, check_options
from benchmarks.cost.plots import log_axes, log_memory, save
from benchmarks.cost.report import Group, groups, machines, markdown, spread
from fairseq_l2t.testing.binomial_optimum import binomial_optimum

__all__ = ["main"]

MODES = ("ours", "ours-gradients", "ours-budget")
_COLORS = {"lstm": "#0072B2", "fconv": "#D55E00", "transformer": "#009E73"}
_STYLES = {"ours": ":", "ours-gradients": "--", "ours-budget": "-"}
_MEBI = 2**20


def _table(records: Sequence[dict], clock: str = "seconds") -> str:
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


def _draw(path: str | os.PathLike[str], records: Sequence[dict], clock: str = "seconds") -> None:
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
    """Run the command line ``arguments``."""
    options = _parse(arguments)
    cells = [
        Cell(
            size,
            family,
            updates,
            competitor,
            repeat,
            options.device,
            options.threads,
            options.max_tokens,
            options.memory_budget,
            options.graph_budget,
        )
        for size in options.sizes
        for family in options.families
        for updates in sorted(options.updates)
        for repeat in range(options.repeats)
        for competitor in (PLAIN, *MODES)
    ]
    return run_report(options, cells, _table, _draw)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks.cost.run scaling", description=__doc__.splitlines()[0])
    add_options(parser, FAMILIES)
    parser.set_defaults(repeats=1, timeout=3600.0)
    parser.add_argument(
        "--updates", type=int, nargs="+", default=[20, 80, 320, 1000, 2000], help="T (default: 20 80 320 1000 2000)"
    )
    options = parser.parse_args(arguments)
    check_options(parser, options)
    return options
