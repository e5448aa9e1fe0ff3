"""Tables and plot of benchmarks/unroll.py, from its records."""

from __future__ import annotations

import io
import os
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter
from PIL import Image

__all__ = [
    "RIGHT",
    "Group",
    "draw",
    "groups",
    "log_axes",
    "log_memory",
    "machines",
    "markdown",
    "save",
    "spread",
    "tables",
]

PLAIN = "plain-updates"
RIGHT = 1e-2
"""Relative error below which a hypergradient counts as right in float32."""

# Of Okabe and Ito's palette: ours in blues and greens, peers in reds and yellows.
COLORS = {
    PLAIN: "black",
    "ours": "#0072B2",
    "ours-gradients": "#56B4E9",
    "ours-graphs": "#009E73",
    "ours-fast": "#6A51A3",
    "ours-budget": "#00B7C3",
    "plain-autograd": "#D55E00",
    "higher": "#CC79A7",
    "torchopt": "#E69F00",
    "torchopt-meta": "#B8A000",
}
_PEERS = ("plain-autograd", "higher", "torchopt", "torchopt-meta")
_MENDS = "fairseq's modules with our mends of second derivatives"
_MENDED = (
    "Mends are those of fairseq_l2t.plugin.student.second_derivatives: MATH attention, no fast path, weight norm composed, "
    "GradMultiply right. Stock modules raise or are silently wrong: PEERS.md."
)
_NOTES = {
    "ours": "parameters and optimizer state of every update kept",
    "ours-gradients": "the gradient of every update kept, states of some",
    "ours-graphs": "as many graphs kept as --graph-budget holds",
    "ours-fast": "products with the Hessian by finite differences",
    "ours-budget": "what --memory-budget holds is kept, the rest is made again",
    "plain-autograd": f"{_MENDS}; tied weights under each of their names; fairseq's Adam by hand, 1e-30 inside its "
    "root",
    "higher": _MENDS,
    "torchopt": f"FuncOptimizer; {_MENDS}; tied weights under each of their names; fairseq's Adam written as a "
    "transformation, 1e-30 inside the root",
    "torchopt-meta": f"MetaAdam; {_MENDS}; 1e-30 inside the root; its Adam is PyTorch's, with eps elsewhere",
}
_BETTY = (
    "betty-ml 0.1.1 computes something else: it does not differentiate through unrolled updates at all; its "
    "hypergradients are implicit (darts, cg, neumann) or estimated by reinforce."
)
_HOW_TO_READ = (
    "A step is one update and the way back through it. The gradient of the objective is not part of it; with a peer, "
    f"its backward half is. WRONG: a relative error above {RIGHT:g} on the worst tensor of the teacher, in float32, "
    "against our exact mode. Best peer: the fastest that is right."
)
_DOTS_PER_INCH = 80
_MEBI = 2**20
Records = Sequence[dict]


@dataclass
class Group:
    """The records of one student and T: by competitor those that are ok, and what became of the others."""

    size: str
    family: str
    updates: int
    ok: dict[str, list[dict]]
    failed: dict[str, str]

    @property
    def competitors(self) -> list[str]:
        """Competitors of the group, in the order of `COLORS`."""
        return [name for name in COLORS if name in self.ok or name in self.failed]

    def per_step(self, competitor: str, *parts: str) -> list[float]:
        """Return the seconds a step takes, of each repeat; without the objective unless it is asked for."""
        parts = parts or ("unroll", "reverse")
        return [sum(r["seconds"].get(part, 0.0) for part in parts) / self.updates for r in self.ok[competitor]]

    def ratios(self, competitor: str) -> list[float]:
        """Return the time over that of plain updates in the same repeat."""
        plain = {record["repeat"]: record["seconds"]["unroll"] for record in self.ok.get(PLAIN, [])}
        return [
            (r["seconds"]["unroll"] + r["seconds"].get("reverse", 0.0)) / plain[r["repeat"]]
            for r in self.ok[competitor]
            if r["repeat"] in plain
        ]

    def memory(self, competitor: str) -> float | None:
        """Return bytes of the peak above that of plain updates, medians of both."""
        if PLAIN not in self.ok:
            return None
        plain = statistics.median(record["peak"] for record in self.ok[PLAIN])
        return statistics.median(record["peak"] for record in self.ok[competitor]) - plain

    def error(self, competitor: str) -> float | None:
        """Return the relative error of the hypergradient; None for plain updates."""
        errors = [record["error"] for record in self.ok[competitor] if "error" in record]
        # NaN is larger than any bound.
        return max(errors, key=lambda error: (error != error, error)) if errors else None

    @property
    def best_peer(self) -> str | None:
        """The fastest peer whose hypergradient is right."""
        right = [name for name in _PEERS if name in self.ok and self.error(name) < RIGHT]
        return min(right, key=lambda name: statistics.median(self.per_step(name)), default=None)


def groups(records: Records, clock: str = "seconds") -> list[Group]:
    """Return the records by student and T, in their order; ``clock``: the field whose seconds are taken."""
    found: dict[tuple, Group] = {}
    for record in records:
        key = (record["size"], record["family"], record["updates"])
        group = found.setdefault(key, Group(*key, {}, {}))
        if record["status"] == "ok":
            group.ok.setdefault(record["competitor"], []).append({**record, "seconds": record[clock]})
        else:
            group.failed[record["competitor"]] = record["status"]
    return list(found.values())


def tables(records: Records, clock: str = "seconds") -> str:
    """Return Markdown: a table for each student and T, memory by the step, and what was given to whom."""
    found = groups(records, clock)
    if not found:
        return "no cells"
    names = [name for name in COLORS if any(name in group.competitors for group in found)]
    notes = [f"- {name}: {_NOTES[name]}" for name in names if name in _NOTES]
    notes += [f"- {_MENDED}", f"- {_BETTY}"]
    parts = [machines(records), _HOW_TO_READ, *map(_table, found), _slopes(found), "\n".join(notes)]
    return "\n\n".join(part for part in parts if part)


def machines(records: Records) -> str:
    """Return one line for each machine and setting the records come from."""
    lines = []
    for record in records:
        about = record["machine"]
        versions = ", ".join(f"{name} {version}" for name, version in about.items() if name not in ("device", "cores"))
        settings = f"{record['threads']} thread(s), --max-tokens {record['max_tokens']}"
        lines.append(f"{about['device']} ({about['cores']} cores), {settings}; {versions}.")
    return "\n".join(dict.fromkeys(lines))


def _table(group: Group) -> str:
    count = next((r["parameters"] for rs in group.ok.values() for r in rs), None)
    size = "" if count is None else f", {count:,} parameters"
    repeats = max((len(records) for records in group.ok.values()), default=0)
    of = f"median (lowest to highest) of {repeats}" if repeats > 1 else "one run"
    title = f"**{group.family}, {group.size}, T = {group.updates}**{size}; {of}:"
    columns = [
        "ms a step",
        "over plain updates",
        "over best peer",
        "unroll ms",
        "reverse ms",
        "objective, ms in all",
        "MiB above plain",
        "relative error",
    ]
    best = group.best_peer
    rows = [(_marked(name, best), _row(group, name, best)) for name in group.competitors]
    return markdown(title, columns, rows)


def _marked(name: str, best: str | None) -> str:
    return f"{name} (best peer)" if name == best else name


def _row(group: Group, name: str, best: str | None) -> list[str]:
    if name not in group.ok:
        return [group.failed[name].replace("|", "/")] + [""] * 7
    time, ratios, error = group.per_step(name), group.ratios(name), group.error(name)
    cells = [spread([1000 * value for value in time]), spread(ratios) if ratios else ""]
    if best is None or name == PLAIN:
        cells.append("")
    else:
        cells.append(_short(statistics.median(time) / statistics.median(group.per_step(best))))
    cells += [_milliseconds(group, name, part) for part in ("unroll", "reverse")]
    objectives = [1000 * r["seconds"]["objective"] for r in group.ok[name] if "objective" in r["seconds"]]
    memory = group.memory(name)
    return [
        *cells,
        _short(statistics.median(objectives)) if objectives else "",
        "" if memory is None or name == PLAIN else f"{memory / _MEBI:,.0f}",
        "" if error is None else (f"{error:.0e}" if error else "0") + ("" if error < RIGHT else " WRONG"),
    ]


def _milliseconds(group: Group, name: str, part: str) -> str:
    values = [1000 * value for value in group.per_step(name, part)]
    return _short(statistics.median(values)) if any(values) else ""


def _slopes(found: list[Group]) -> str:
    """Memory by the step between the smallest and the largest T, in bytes and in vectors of parameters."""
    rows = []
    for size, family in dict.fromkeys((group.size, group.family) for group in found):
        mine = [group for group in found if (group.size, group.family) == (size, family)]
        for name in COLORS:
            known = [(g.updates, g.memory(name), g.ok[name][0]["parameters"]) for g in mine if name in g.ok]
            known = sorted(entry for entry in known if entry[1] is not None)
            if name != PLAIN and len(known) > 1:
                (first, low, count), (last, high, _) = known[0], known[-1]
                slope = (high - low) / (last - first)
                row = [
                    f"{first} to {last}",
                    f"{slope / _MEBI:.2f}",
                    _short(slope / (4 * count)),
                    _short(slope / (12 * count)),
                ]
                rows.append((f"{family}, {size}: {name}", row))
    columns = ["T", "MiB a step", "over the parameters", "over parameters and Adam's state"]
    return markdown("Memory kept by the step:", columns, rows) if rows else ""


def spread(values: Sequence[float]) -> str:
    """Return the median, and lowest and highest of more than one."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{_short(middle)} ({_short(low)} to {_short(high)})" if len(values) > 1 else _short(middle)


def _short(number: float) -> str:
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.1f}" if abs(number) >= 10 else f"{number:.2f}"


def markdown(title: str, columns: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    """Return a titled table."""
    lines = [f"| | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    lines += [f"| {name} | {' | '.join(cells)} |" for name, cells in rows]
    return "\n".join([title, "", *lines])


def draw(path: str | os.PathLike[str], records: Records, clock: str = "seconds") -> None:
    """Draw milliseconds a step and memory above plain updates against T, a row for each student.

    Raises:
        OSError: the file could not be written.
    """
    found = groups(records, clock)
    students = list(dict.fromkeys((group.size, group.family) for group in found))
    figure = Figure(figsize=(11, 1.0 + 3.2 * len(students)), layout="constrained")
    grid = figure.subplots(len(students), 2, squeeze=False)
    for (size, family), (time, memory) in zip(students, grid, strict=True):
        mine = sorted((g for g in found if (g.size, g.family) == (size, family)), key=lambda g: g.updates)
        _lines(time, mine, lambda group, name: [1000 * value for value in group.per_step(name)])
        _lines(memory, mine, lambda group, name: [] if name == PLAIN else _mebibytes(group, name))
        log_axes(time, [group.updates for group in mine], f"{family}, {size}\n\nms a step", from_zero=True)
        log_axes(memory, [group.updates for group in mine], "MiB above plain updates")
        log_memory(memory)
    for axes, title in zip(grid[0], ("Time of one unrolled step", "Peak resident memory"), strict=True):
        axes.set_title(title, loc="left", fontsize=10)
    names = [name for name in COLORS if any(name in group.ok for group in found)]
    handles = [Line2D([], [], **_style(name), label=name) for name in names]
    figure.legend(handles=handles, loc="outside lower center", ncols=5, frameon=False)
    save(figure, path)


def save(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a PNG of 128 colors, which is all that a few lines need, in a third of the size."""
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=_DOTS_PER_INCH)
    Image.open(image).convert("RGB").quantize(128).save(path, format="png")


def _mebibytes(group: Group, name: str) -> list[float]:
    memory = group.memory(name)
    # A logarithm has no place for what takes no more than plain updates.
    return [] if memory is None else [max(memory / _MEBI, 1.0)]


def _style(name: str) -> dict:
    return {"color": COLORS[name], "linestyle": "--" if name == PLAIN else "-", "marker": "o", "markersize": 4}


def _lines(axes: Axes, mine: list[Group], values: Callable[[Group, str], list[float]]) -> None:
    for name in COLORS:
        points = [(group.updates, values(group, name)) for group in mine if name in group.ok]
        points = [(updates, column) for updates, column in points if column]
        if points:
            x, columns = zip(*points, strict=True)
            axes.plot(x, [statistics.median(column) for column in columns], **_style(name))
            low, high = [min(column) for column in columns], [max(column) for column in columns]
            axes.fill_between(x, low, high, color=COLORS[name], alpha=0.13, linewidth=0)


def log_memory(axes: Axes) -> None:
    """Count memory on a logarithmic axis, in plain numbers."""
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:,g}")
    axes.yaxis.set_minor_formatter(NullFormatter())


def log_axes(axes: Axes, ticks: Sequence[int], label: str, *, from_zero: bool = False) -> None:
    """Count T on a logarithmic axis with ``ticks``."""
    axes.set_xscale("log")
    axes.set_xticks(sorted(set(ticks)), [f"{tick:,}" for tick in sorted(set(ticks))])
    axes.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
    axes.set_xlabel("updates T")
    axes.set_ylabel(label)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if from_zero:
        axes.set_ylim(bottom=0)
