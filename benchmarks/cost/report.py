"""Tables of `benchmarks.cost.unroll`, from its records; `benchmarks.cost.scaling` has its own."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.cost.group import PLAIN

__all__ = ["NAMES", "RIGHT", "Group", "groups", "machines", "markdown", "spread", "tables"]

RIGHT = 1e-2
"""Relative error below which a hypergradient counts as right in float32."""

NAMES = (
    PLAIN,
    "ours",
    "ours-gradients",
    "ours-graphs",
    "ours-fast",
    "ours-budget",
    "plain-autograd",
    "higher",
    "torchopt",
    "torchopt-meta",
)
"""Competitors, in the order of tables."""

_PEERS = ("plain-autograd", "higher", "torchopt", "torchopt-meta")
_CORRECTED = "fairseq's modules with our corrections of second derivatives"
_CORRECTIONS = (
    "Corrections are those of fairseq_l2t.plugin.student.second_derivatives: MATH attention, no fast path, weight norm "
    "composed, GradMultiply right. Stock modules raise or are silently wrong: benchmarks/peers/README.md."
)
_NOTES = {
    "ours": "parameters and optimizer state of every update kept",
    "ours-gradients": "the gradient of every update kept, states of some",
    "ours-graphs": "as many graphs kept as --graph-budget holds",
    "ours-fast": "products with the Hessian by finite differences",
    "ours-budget": "what --memory-budget holds is kept, the rest is made again",
    "plain-autograd": f"{_CORRECTED}; tied weights under each of their names; fairseq's Adam by hand, 1e-30 inside its "
    "root",
    "higher": _CORRECTED,
    "torchopt": f"FuncOptimizer; {_CORRECTED}; tied weights under each of their names; fairseq's Adam written as a "
    "transformation, 1e-30 inside the root",
    "torchopt-meta": f"MetaAdam; {_CORRECTED}; 1e-30 inside the root; its Adam is PyTorch's, with eps elsewhere",
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
_MEBI = 2**20
Records = Sequence[dict]


@dataclass
class Group:
    """The records of one student and T, by competitor; ``failed`` holds the status of those without figures."""

    size: str
    family: str
    updates: int
    ok: dict[str, list[dict]]
    failed: dict[str, str]

    @property
    def competitors(self) -> list[str]:
        """Competitors of the group, in the order of `NAMES`."""
        return [name for name in NAMES if name in self.ok or name in self.failed]

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
    """Return Markdown: a table for each student and T, memory by the step, and notes on the competitors."""
    found = groups(records, clock)
    if not found:
        return "no cells"
    names = [name for name in NAMES if any(name in group.competitors for group in found)]
    notes = [f"- {name}: {_NOTES[name]}" for name in names if name in _NOTES]
    notes += [f"- {_CORRECTIONS}", f"- {_BETTY}"]
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
        for name in NAMES:
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
