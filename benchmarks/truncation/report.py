"""Tables and plot of `benchmarks.truncation.run`, from its records."""

from __future__ import annotations

import io
import os
import statistics
from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, NullFormatter
from PIL import Image

__all__ = ["draw", "tables"]

# Of Okabe and Ito's palette, told apart also without red-green vision.
_COLORS = {"lstm": "#0072B2", "fconv": "#D55E00", "transformer": "#009E73"}
_STEPS_BACK = (1, 2, 5, 10, 20, 40, 80, 160, 320)
_DOTS_PER_INCH = 80
_HIGHEST_NORM = 10
_TITLES = (
    "Last W updates against all T: cosine",
    "Last W updates against all T: norm",
    "First W, own measure against share at T",
    f"Adjoint, backwards in time (cut at {_HIGHEST_NORM})",
)
_X_LABELS = ("window W (updates)", "window W (updates)", "window W (updates)", "updates back from the measure")
_Y_LABELS = ("cosine", "norm / norm of the full", "cosine", "norm / norm at the measure")

Records = Sequence[dict]
Value = Callable[[dict], float]


def _of(part: str, key: str) -> Value:
    return lambda row: row[part][key]


def _level_ratio(row: dict) -> float:
    whole = row["shared"]["whole_level"]
    return row["shared"]["level"] / whole if whole else float("nan")


def tables(records: Records) -> str:
    """Return Markdown tables; a cell is the median over starting points and seeds, and the lowest and highest."""
    last = "The last W updates against all T: "
    short = "Windows of the first W updates with their own measure, against the share of these updates in the measure "
    short += "after T: "
    parts = [
        _table(records, last + "cosine, everything", "windows", _of("all", "cosine")),
        _table(records, last + "norm ratio, everything", "windows", _of("all", "ratio")),
        _table(records, last + "cosine, each word's own part", "windows", _of("words", "cosine")),
        _table(
            records, last + "slope of the level all words share, ratio (below 0: wrong sign)", "windows", _level_ratio
        ),
        _table(records, short + "cosine, everything", "horizons", _of("all", "cosine")),
        _table(records, short + "cosine, each word's own part", "horizons", _of("words", "cosine")),
        _table(records, short + "slope of the shared level, ratio (below 0: wrong sign)", "horizons", _level_ratio),
        _table(
            records,
            "Windows of the first W updates with their own measure: slope of the shared level",
            "horizons",
            _of("shared", "level"),
        ),
        _signs(records),
        _adjoints(records),
    ]
    return "\n\n".join(part for part in parts if part)


def _groups(records: Records) -> dict[tuple[str, str], list[dict]]:
    groups: dict[tuple[str, str], list[dict]] = {}
    for record in records:
        groups.setdefault((record["family"], record["objective"]), []).append(record)
    return groups


def _lengths(records: Records, field: str) -> list[int]:
    return sorted({row["window"] for record in records for row in record[field]})


def _values(records: Records, field: str, length: int, value: Value) -> list[float]:
    return [value(row) for record in records for row in record[field] if row["window"] == length]


def _table(records: Records, title: str, field: str, value: Value) -> str:
    lengths = _lengths(records, field)
    if not lengths:
        return ""
    rows = [
        (f"{family}, {objective}", [_spread(_values(group, field, length, value)) for length in lengths])
        for (family, objective), group in _groups(records).items()
    ]
    return _markdown(title, [f"W = {length}" for length in lengths], rows)


def _signs(records: Records) -> str:
    """The signs themselves, start by start: a ratio does not say which of the two is positive."""
    lengths = _lengths(records, "horizons")
    rows = []
    for record in records:
        signs = [_sign(row["shared"]["level"]) + _sign(row["shared"]["whole_level"]) for row in record["horizons"]]
        full = _sign(record["windows"][-1]["shared"]["level"])
        name = f"{record['family']}, {record['objective']}, seed {record['seed']}, start {record['start']}"
        rows.append((name, [*signs, full]))
    title = "Sign of the shared level's slope: of the first W updates at their own end, then of the same updates at T; "
    title += "last column: of all T updates at T"
    return _markdown(title, [*(f"W = {length}" for length in lengths), "T"], rows) if rows else ""


def _sign(number: float) -> str:
    return "+" if number > 0 else "-"


def _adjoints(records: Records) -> str:
    steps = [step for step in _STEPS_BACK if step < min(len(record["adjoint_norms"]) for record in records)]
    rows = [
        (
            f"{family}, {objective}",
            [_spread([r["adjoint_norms"][step] / r["adjoint_norms"][0] for r in group]) for step in steps],
        )
        for (family, objective), group in _groups(records).items()
    ]
    title = "Norm of the adjoint, updates back from the measure, against its norm at the measure"
    return _markdown(title, [str(step) for step in steps], rows)


def _spread(values: list[float]) -> str:
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{_short(middle)} ({_short(low)} to {_short(high)})" if len(values) > 1 else _short(middle)


def _short(number: float) -> str:
    if 0.005 <= abs(number) < 10 or number == 0:
        return f"{number:.2f}"
    return f"{number:.0f}" if 10 <= abs(number) < 1000 else f"{number:.0e}".replace("e+0", "e").replace("e-0", "e-")


def _markdown(title: str, columns: list[str], rows: list[tuple[str, list[str]]]) -> str:
    lines = [f"| | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    lines += [f"| {name} | {' | '.join(cells)} |" for name, cells in rows]
    return "\n".join([f"{title}:", "", *lines])


def draw(path: str | os.PathLike[str], records: Records) -> None:
    """Draw medians and, as bands, lowest to highest over starting points and seeds.

    Raises:
        OSError: the file could not be written.
    """
    objectives = list(dict.fromkeys(record["objective"] for record in records))
    figure = Figure(figsize=(15, 0.7 + 3.1 * len(objectives)), layout="constrained")
    grid = figure.subplots(len(objectives), 4, sharex="col", sharey="col", squeeze=False)
    for objective, (cosine, ratio, short, adjoint) in zip(objectives, grid, strict=True):
        chosen = [record for record in records if record["objective"] == objective]
        _draw_lengths(cosine, chosen, "windows", _of("all", "cosine"))
        cosine.axhline(0.9, color="0.4", linewidth=0.8, linestyle=":")
        _draw_lengths(ratio, chosen, "windows", _of("all", "ratio"))
        _draw_lengths(short, chosen, "horizons", _of("all", "cosine"))
        short.axhline(0.0, color="black", linewidth=0.8)
        _draw_adjoints(adjoint, chosen)
        for axes, label in zip((cosine, ratio, short, adjoint), _Y_LABELS, strict=True):
            _finish(axes, label)
        cosine.set_ylabel(f"measure: {objective}\n\n{_Y_LABELS[0]}")
    for axes, title, label in zip(grid[0], _TITLES, _X_LABELS, strict=True):
        axes.set_title(title, loc="left", fontsize=10)
        grid[-1][list(grid[0]).index(axes)].set_xlabel(label)
    figure.legend(handles=_legend(records), loc="outside lower center", ncols=3, frameon=False)
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=_DOTS_PER_INCH)
    # 128 colors are all that bands over bands need, in a third of the size.
    Image.open(image).convert("RGB").quantize(128).save(path, format="png")


def _legend(records: Records) -> list[Line2D]:
    families = [family for family in _COLORS if any(record["family"] == family for record in records)]
    return [Line2D([], [], color=_COLORS[family], linewidth=2.5, label=family) for family in families]


def _draw_lengths(axes: Axes, records: Records, field: str, value: Value) -> None:
    for (family, _), group in _groups(records).items():
        lengths = _lengths(group, field)
        _draw_spread(axes, lengths, [_values(group, field, length, value) for length in lengths], family, marker="o")
    _count_on(axes, _lengths(records, field))


def _draw_adjoints(axes: Axes, records: Records) -> None:
    longest = 0
    for (family, _), group in _groups(records).items():
        curves = [[norm / record["adjoint_norms"][0] for norm in record["adjoint_norms"]] for record in group]
        columns = list(zip(*curves, strict=True))[1:]
        longest = max(longest, len(columns))
        _draw_spread(axes, range(1, len(columns) + 1), columns, family, marker=None)
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())
    # One that explodes would flatten all the others.
    axes.set_ylim(top=min(axes.get_ylim()[1], _HIGHEST_NORM))
    _count_on(axes, [step for step in _STEPS_BACK if step <= longest])


def _count_on(axes: Axes, ticks: list[int]) -> None:
    axes.set_xscale("log")
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)


def _draw_spread(axes: Axes, x: Sequence[int], columns: Sequence, family: str, marker: str | None) -> None:
    axes.plot(x, [statistics.median(column) for column in columns], color=_COLORS[family], marker=marker, markersize=3)
    low, high = [min(column) for column in columns], [max(column) for column in columns]
    axes.fill_between(x, low, high, color=_COLORS[family], alpha=0.13, linewidth=0)


def _finish(axes: Axes, label: str) -> None:
    axes.set_ylabel(label)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
