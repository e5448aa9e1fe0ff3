"""How long must a window be: truncated against full hypergradients, and the adjoint's norm backwards in time.

    python benchmarks/truncation.py --json out/truncation.jsonl --plot out/truncation.png

A student of each family lives under a new teacher. At several points of its life T updates are unrolled, and one sweep
back from the measure at their end gives the share of every update in the hypergradient. Two questions are asked of it:

- truncation: the last W updates alone against all T, for the same measure at the end;
- short horizon: a window of the *first* W updates, ended by a measure of its own, against the share these same updates
  have in the measure T updates later. This is what decides whether a teacher that is trained on short windows is led
  the right way.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

if str(Path(__file__).resolve().parent.parent) not in sys.path:
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.truncation_report import draw, tables
from fairseq_l2t.checks.differences import spread
from fairseq_l2t.core import Teacher
from fairseq_l2t.plugin import FairseqStudent
from fairseq_l2t.plugin.student.dev_measures import OBJECTIVES
from fairseq_l2t.unroll.adjoint_sweep import adjoint_sweep
from fairseq_l2t.unroll.trajectory import Trajectory, advance, unroll
from toy_corpus.tiny import CorpusSettings, PrepareSettings, prepare, write_corpus

__all__ = ["FAMILIES", "Sweep", "compare", "main", "measure_life", "sweep", "window_lengths"]

WINDOWS = (1, 2, 5, 10, 20, 40, 80, 160, 320)
FAMILIES = {
    "lstm": [
        *("--arch", "lstm", "--encoder-embed-dim", "64", "--encoder-hidden-size", "64", "--encoder-layers", "2"),
        *("--decoder-embed-dim", "64", "--decoder-hidden-size", "64", "--decoder-layers", "2"),
        *("--decoder-out-embed-dim", "64", "--lr", "3e-3"),
    ],
    "fconv": [
        *("--arch", "fconv", "--encoder-embed-dim", "64", "--encoder-layers", "[(64,3)]*2"),
        *("--decoder-embed-dim", "64", "--decoder-layers", "[(64,3)]*2", "--decoder-out-embed-dim", "64"),
        *("--lr", "3e-3"),
    ],
    "transformer": [
        *("--arch", "transformer", "--encoder-embed-dim", "64", "--encoder-ffn-embed-dim", "128"),
        *("--encoder-layers", "2", "--encoder-attention-heads", "4", "--encoder-normalize-before"),
        *("--decoder-embed-dim", "64", "--decoder-ffn-embed-dim", "128", "--decoder-layers", "2"),
        *("--decoder-attention-heads", "4", "--decoder-normalize-before", "--share-all-embeddings", "--lr", "3e-3"),
    ],
}
"""Students of width 64 and two layers, the Transformer with pre-norm."""

PHI = 0.3
RECIPE = [
    *("--optimizer", "adam", "--adam-betas", "(0.9, 0.98)", "--lr-scheduler", "inverse_sqrt"),
    *("--warmup-updates", "50", "--cross-entropy-updates", "20", "--max-tokens", "300", "--clip-norm", "0.5"),
    *("--dropout", "0.1", "--initial-coefficient", str(PHI), "--num-workers", "0"),
]
"""As the teacher's students of experiments/grids/recipes, with smaller batches, and with clipping."""

_SPREAD = 0.1
_LIFE = 1200


@dataclass(frozen=True)
class Sweep:
    """What one sweep over T updates found.

    Args:
        shares: (T, values + queries) float64, the share of each update in the hypergradient, oldest first.
        adjoint_norms: (T + 1,) norms of d measure / d omega_t, from t = T back to t = 0.
        entries, keys: shape of the teacher's values, which come first in a row of ``shares``.
    """

    shares: Tensor
    adjoint_norms: list[float]
    entries: int
    keys: int

    def components(self, theta: Tensor) -> dict[str, Tensor]:
        """Return all of ``theta``, what all words share (keys,), and each word's deviation from it."""
        values = theta[: self.entries * self.keys].view(self.entries, self.keys)
        return {"all": theta, "shared": values.sum(dim=0), "words": (values - values.mean(dim=0)).flatten()}


def sweep(trajectory: Trajectory, grad_omega: Tensor, after_step: Callable[[], object] = lambda: None) -> Sweep:
    """Go back through all of ``trajectory`` from ``grad_omega`` (n,), d measure / d omega_T, and keep every share."""
    teacher = trajectory.teacher
    named = dict(teacher.named_parameters())
    order = ["values", *(name for name in named if name != "values")]
    shares, norms = [], [float(grad_omega.norm())]
    for step in adjoint_sweep(trajectory, grad_omega):
        theta = step.theta or {name: torch.zeros_like(parameter) for name, parameter in named.items()}
        shares.append(torch.cat([theta[name].detach().double().flatten() for name in order]))
        norms.append(float(step.adjoint.norm()))
        after_step()
    return Sweep(torch.stack(shares[::-1]), norms, teacher.entries, teacher.keys)


def compare(found: Sweep, part: Tensor, whole: Tensor) -> dict[str, dict[str, float]]:
    """Return cosine and norm ratio of a hypergradient against another, by component.

    ``level`` of the shared component is the slope of the measure when all coefficients rise alike, with its sign;
    ``whole_level`` the same of ``whole``.
    """
    parts, wholes, result = found.components(part), found.components(whole), {}
    for name in parts:
        one, other = float(parts[name].norm()), float(wholes[name].norm())
        dot = float(parts[name] @ wholes[name])
        result[name] = {"cosine": dot / (one * other) if one * other else 0.0, "ratio": one / other if other else 0.0}
    result["shared"].update(level=float(parts["shared"].sum()), whole_level=float(wholes["shared"].sum()))
    return result


def window_lengths(updates: int) -> list[int]:
    """Return the window lengths to report for T updates, T itself last."""
    return [*(length for length in WINDOWS if length < updates), updates]


def _horizon_lengths(updates: int) -> list[int]:
    """Short against T means a quarter of it at most; longer ones would cost as much again as all the rest."""
    return [length for length in window_lengths(updates) if 4 * length <= updates]


def student_arguments(data: Path, family: str, seed: int, life: int) -> list[str]:
    """Return the command line of a student."""
    return [str(data), *FAMILIES[family], *RECIPE, "--seed", str(seed), "--total-updates", str(life)]


def measure_life(
    data: Path, family: str, seed: int, options: argparse.Namespace, after_step: Callable[[], object] = lambda: None
) -> Iterator[dict]:
    """Yield a record for each starting point and objective of one student's life.

    Args:
        data: DATA_BIN.
        family, seed: of the student.
        options: ``starts`` (after the cross-entropy updates, at least ``updates`` apart), ``updates``, ``objective``.
        after_step: called after each update made or gone back through.
    """
    student = FairseqStudent.from_args(student_arguments(data, family, seed, options.life))
    teacher = Teacher.for_student(student, seed=seed, initial_coefficient=PHI)
    spread(teacher, seed, (1 - _SPREAD) * PHI, (1 + _SPREAD) * PHI)
    for start in sorted(options.starts):
        for _ in range(student.cross_entropy_updates + start - student.update):
            advance(student, teacher, 1)
            after_step()
        student.observe_dev(student.dev.teaching)
        trajectory = Trajectory(student, teacher)
        for _ in range(options.updates):
            trajectory.steps += unroll(student, teacher, 1).steps
            after_step()
        for objective in options.objective:
            record = {
                "family": family,
                "seed": seed,
                "start": start,
                "objective": objective,
                "updates": options.updates,
                "parameters": len(student.omega),
            }
            yield record | _measure(trajectory, objective, after_step)


def _measure(trajectory: Trajectory, objective: str, after_step: Callable[[], object]) -> dict:
    value, gradient = _objective(trajectory.student, objective)
    found = sweep(trajectory, gradient, after_step)
    windows, whole = [], found.shares.sum(dim=0)
    for length in window_lengths(len(trajectory.steps)):
        windows.append({"window": length, **compare(found, found.shares[-length:].sum(dim=0), whole)})
    return {
        "measure": value,
        "windows": windows,
        "horizons": _short_horizons(trajectory, objective, found, after_step),
        "adjoint_norms": [float(f"{norm:.4g}") for norm in found.adjoint_norms],
    }


def _short_horizons(trajectory: Trajectory, objective: str, full: Sweep, after_step: Callable[[], object]) -> list:
    """Compare windows of the first W updates, each with a measure of its own, with their share in the full sweep."""
    student, final_omega, horizons = trajectory.student, trajectory.student.omega.clone(), []
    for length in _horizon_lengths(len(trajectory.steps)):
        student.set_omega(trajectory.steps[length].omega)
        value, gradient = _objective(student, objective)
        window = Trajectory(student, trajectory.teacher, trajectory.steps[:length])
        own = sweep(window, gradient, after_step).shares.sum(dim=0)
        later = full.shares[:length].sum(dim=0)
        horizons.append({"window": length, "measure": value, **compare(full, own, later)})
    student.set_omega(final_omega)
    return horizons


def _objective(student: FairseqStudent, objective: str) -> tuple[float, Tensor]:
    """All pairs that train the teacher: noise of the dev measure is not what is asked here."""
    return student.dev_objective(objective, pairs=student.dev.teaching)


def _build_corpus(folder: Path) -> Path:
    """As the demo's corpus, with 30 % of the training pairs misaligned, but half as large."""
    write_corpus(folder / "raw", CorpusSettings(train=4000, dev=400, test=20, seed=1, noise=0.3))
    return prepare(folder / "raw", folder / "data", PrepareSettings(vocabulary=1000))


def _steps_in_all(options: argparse.Namespace) -> int:
    life = 20 + max(options.starts) + options.updates
    sweeps = len(options.starts) * len(options.objective) * (options.updates + sum(_horizon_lengths(options.updates)))
    return len(options.families) * len(options.seeds) * (life + sweeps)


def _run(options: argparse.Namespace, data: Path) -> list[dict]:
    records = []
    with tqdm(total=_steps_in_all(options), unit="step", file=sys.stderr, mininterval=1) as progress:
        for seed in options.seeds:
            for family in options.families:
                progress.set_description(f"{family}, seed {seed}")
                for record in measure_life(data, family, seed, options, progress.update):
                    records.append(record)
                    if options.json:
                        with options.json.open("a", encoding="utf-8") as file:
                            file.write(json.dumps(record) + "\n")
    return records


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    parser.add_argument("--updates", type=int, default=320, help="T, updates of the full window (default %(default)s)")
    parser.add_argument(
        "--starts",
        type=int,
        nargs="+",
        default=[0, 400, 800],
        help="first updates of windows, counted after the cross-entropy ones",
    )
    parser.add_argument("--objective", nargs="+", choices=OBJECTIVES[:2], default=["inverse-perplexity", "likelihood"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--json", type=Path, metavar="FILE", help="write one JSON object a line")
    parser.add_argument("--plot", type=Path, metavar="FILE.png")
    parser.add_argument("--report", type=Path, metavar="FILE", help="table and plot of an earlier run's --json")
    parser.add_argument("--data", type=Path, metavar="DATA_BIN", help="prepared data (default: a corpus is written)")
    options = parser.parse_args(arguments)
    starts = sorted(options.starts)
    if options.updates < 1:
        parser.error(f"--updates: {options.updates}; expected at least 1")
    if starts[0] < 0 or any(b - a < options.updates for a, b in zip(starts, starts[1:], strict=False)):
        parser.error(f"--starts: {options.starts}; expected numbers of at least 0 that are --updates or more apart")
    options.life = max(_LIFE, 20 + starts[-1] + options.updates)
    return options


def _read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _measured(options: argparse.Namespace) -> list[dict]:
    logging.getLogger("fairseq").setLevel(logging.WARNING)
    if options.json:
        options.json.write_text("", encoding="utf-8")
    if options.data:
        return _run(options, options.data)
    with tempfile.TemporaryDirectory() as folder:
        return _run(options, _build_corpus(Path(folder)))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    options = _parse(arguments)
    records = _read(options.report) if options.report else _measured(options)
    print(tables(records))
    if options.plot:
        draw(options.plot, records)
    return 0


if __name__ == "__main__":
    sys.exit(main())
