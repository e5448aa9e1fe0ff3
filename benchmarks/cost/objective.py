"""What does the objective of expected BLEU cost? Its share of a teacher update, and where its time goes.

    python -m benchmarks.cost.run objective --json objective.jsonl

A student of each family of `benchmarks.small_students` lives under a teacher that is trained in windows of T updates,
by the loop of ``l2t-train-teacher``. The measure of each window draws hypotheses, rewards and scores them; it is timed
inside its teacher update. The first window is the most expensive: its student still writes at random until it is cut.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import torch
from tabulate import tabulate
from tqdm import tqdm

from benchmarks.small_students import CROSS_ENTROPY_UPDATES, FAMILIES, PHI, RECIPE, small_corpus
from fairseq_l2t.core import Teacher
from fairseq_l2t.objectives import ESTIMATORS
from fairseq_l2t.plugin import FairseqStudent
from fairseq_l2t.plugin.student.dev_measures import DevMeasures
from fairseq_l2t.teaching.options.teaching_options import TeachingOptions
from fairseq_l2t.teaching.plan import plan_of, resolve
from fairseq_l2t.teaching.trainer import TeacherTrainer

__all__ = ["main"]

_ROWS = {
    "draw": "drawing, s",
    "reward": "words and rewards, s",
    "score": "scoring and its gradient, s",
    "objective": "objective in all, s",
    "update": "teacher update, s",
    "share": "share of the update, %",
}


class _Clock:
    """Adds up seconds by name."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def time(self, name: str) -> Iterator[None]:
        """Add the seconds of the block to those of ``name``."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def timed(self, name: str, function: Callable) -> Callable:
        """Return ``function``, timed."""

        def call(*arguments, **named):
            with self.time(name):
                return function(*arguments, **named)

        return call


def _measure_family(data: Path, family: str, options: argparse.Namespace) -> Iterator[dict]:
    """Yield the seconds of each teacher update of one student's life.

    Args:
        data: DATA_BIN.
        family: name in `FAMILIES`.
        options: ``updates`` T of a window, ``repeats``, ``pairs``, ``samples``, ``estimator``, ``max_tokens``.
    """
    # The life is longer than the windows: at its end the held-back pairs would be measured as well.
    life = CROSS_ENTROPY_UPDATES + options.updates * (options.repeats + 1)
    student = FairseqStudent.from_args(
        [
            *(str(data), *FAMILIES[family], *RECIPE, "--max-tokens", str(options.max_tokens)),
            *("--total-updates", str(life), "--seed", "1"),
        ]
    )
    clock, measured = _Clock(), {}
    pairs = student.dev.teaching[: options.pairs]

    def measure(number: int):
        with clock.time("objective"):
            value, gradient = student.dev_objective(
                "expected-bleu", pairs=pairs, samples=options.samples, estimator=options.estimator, seed=number
            )
        measured["value"] = value
        return value, gradient

    teacher = Teacher.for_student(student, seed=1, initial_coefficient=PHI)
    given = TeachingOptions(
        unroll_length=options.updates, total_updates=life, teacher_updates=options.repeats, teacher_word_lr=0.01
    )
    plan = plan_of(resolve(given, given=("unroll_length",)), seed=1)
    trainer = TeacherTrainer(student, teacher, plan, measure=measure, holdout=lambda: 0.0, observe_dev=lambda: None)
    with _parts_timed(clock):
        for _ in range(options.repeats):
            clock.seconds.clear()
            with clock.time("update"):
                trainer.run_update(keep_best=lambda: None)
            yield {"family": family, "student_update": student.update, **measured, **clock.seconds}


@contextmanager
def _parts_timed(clock: _Clock) -> Iterator[None]:
    module = sys.modules[ESTIMATORS["reinforce"].__module__]
    with (
        mock.patch.object(DevMeasures, "draw", clock.timed("draw", DevMeasures.draw)),
        mock.patch.object(module, "_rewards", clock.timed("reward", module._rewards)),
        mock.patch.object(DevMeasures, "hypothesis_log_probs", clock.timed("score", DevMeasures.hypothesis_log_probs)),
        mock.patch.object(module, "add_gradient", clock.timed("score", module.add_gradient)),
    ):
        yield


def _summary(records: Sequence[dict]) -> str:
    """Return a table of medians and ranges, by family."""
    families = list(dict.fromkeys(record["family"] for record in records))
    rows = []
    for key, title in _ROWS.items():
        own = [[_value(record, key) for record in records if record["family"] == family] for family in families]
        rows.append([title, *(f"{statistics.median(v):.2f} ({min(v):.2f} to {max(v):.2f})" for v in own)])
    return tabulate(rows, headers=["median (range)", *families], tablefmt="github", disable_numparse=True)


def _value(record: dict, key: str) -> float:
    return 100 * record["objective"] / record["update"] if key == "share" else record[key]


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks.cost.run objective", description=__doc__.splitlines()[0])
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    parser.add_argument("--updates", type=int, default=80, help="T, student updates of a window (default %(default)s)")
    parser.add_argument("--pairs", type=int, default=64, help="dev sentences (default %(default)s)")
    parser.add_argument("--samples", type=int, default=16, help="hypotheses for each (default %(default)s)")
    parser.add_argument("--estimator", choices=ESTIMATORS, default="reinforce")
    parser.add_argument("--max-tokens", type=int, default=1000, help="of a student's batch (default %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="teacher updates (default %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write one JSON object a line")
    parser.add_argument("--data", type=Path, metavar="DATA_BIN", help="prepared data (default: a corpus is written)")
    options = parser.parse_args(arguments)
    for name, least in (("updates", 1), ("pairs", 1), ("samples", 2), ("repeats", 1), ("max_tokens", 1)):
        if getattr(options, name) < least:
            parser.error(f"--{name.replace('_', '-')}: {getattr(options, name)}; expected at least {least}")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line ``arguments``."""
    options = _parse(arguments)
    logging.getLogger("fairseq").setLevel(logging.WARNING)
    torch.set_num_threads(1)
    records: list[dict] = []
    total = len(options.families) * options.repeats
    with tempfile.TemporaryDirectory() as folder, tqdm(total=total, unit="teacher update", file=sys.stderr) as progress:
        data = options.data or small_corpus(Path(folder))
        for family in options.families:
            progress.set_description(family)
            for record in _measure_family(data, family, options):
                records.append(record)
                progress.update()
    if options.json:
        options.json.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    print(_summary(records))
    return 0
