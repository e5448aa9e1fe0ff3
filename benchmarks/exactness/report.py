"""Tables of `benchmarks.exactness.run`, from its records."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from tabulate import tabulate

from fairseq_l2t.testing.exactness import BOUND, BOUND_FLOAT32

__all__ = ["tables"]

MEASURES = {
    "differences": f"against float64 finite differences (bound {BOUND:g})",
    "autograd": f"against plain autograd, float64 (bound {BOUND:g})",
    "float32": f"float32 against float64 along the same path (bound {BOUND_FLOAT32:g})",
    "drift": "float32 against float64 from the same start (no bound: rounding leads to another student)",
}


def tables(records: Sequence[dict]) -> str:
    """Return a table for each measure, a row for each family and a column for each optimizer, and every failed cell."""
    return "\n".join(_lines(records))


def _lines(records: Sequence[dict]) -> Iterator[str]:
    measured = [record for record in records if "error" not in record]
    families, optimizers = (list(dict.fromkeys(record[name] for record in records)) for name in ("family", "optimizer"))
    for measure, title in MEASURES.items():
        yield f"\nLargest relative error {title}:\n"
        rows = [
            [family, *(_largest(records, family, optimizer, measure) for optimizer in optimizers)]
            for family in families
        ]
        yield tabulate(rows, ["student", *optimizers], tablefmt="github", disable_numparse=True)
        if measured:
            worst = max(measured, key=lambda record, name=measure: record[name])
            names = ("family", "optimizer", "clipping", "update_freq", "schedule")
            yield f"\nWorst: {worst[measure]:.1e}, {', '.join(str(worst[name]) for name in names)}"
    failed = [record for record in records if not record.get("good")]
    unresolved = sum(record["unresolved"] for record in measured)
    yield (
        f"\n{len(records)} cells, {len(failed)} over a bound or failed; {unresolved} directions were not resolved "
        "by differences and replaced."
    )
    yield from (f"FAILED: {json.dumps(record)}" for record in failed)


def _largest(records: Sequence[dict], family: str, optimizer: str, measure: str) -> str:
    cells = [record for record in records if (record["family"], record["optimizer"]) == (family, optimizer)]
    values = [record[measure] for record in cells if "error" not in record]
    return f"{max(values):.0e}" if values else "failed" if cells else ""
