"""What does a teacher cost a student? An update under ``dynamic_teacher_loss`` against one under fairseq's own loss.

    python -m benchmarks.cost.run overhead --json student_overhead.json

Each loss has a process of its own that runs the whole of ``fairseq-train``: loop, Trainer, data and log. The processes
take turns of some updates, a second or so, and never run at the same time, so that other load on the machine affects
them alike. fairseq's loss runs twice: the ratio between its two processes is 1 but for noise, and shows how far the
other ratio can be trusted.

Sentences are drawn at random from a vocabulary of 10,000 words.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tabulate import tabulate
from tqdm import tqdm

from benchmarks.cost.fairseq_turns import TrainingFailed, train_in_turns
from benchmarks.cost.random_corpus import write_random_corpus
from benchmarks.small_students import FAMILIES, PHI
from fairseq_l2t.core import Teacher
from fairseq_l2t.loss.student_state import BASE_FEATURES
from fairseq_l2t.storage import TeacherSettings, Vocabulary, save_teacher

__all__ = ["main"]

LOSSES = {
    "label_smoothed_cross_entropy": [
        *("--task", "translation", "--criterion", "label_smoothed_cross_entropy", "--label-smoothing", "0.1"),
    ],
    "dynamic_teacher_loss": ["--task", "l2t_dlf", "--criterion", "dynamic_teacher_loss"],
}
AGAIN = "label_smoothed_cross_entropy, again"
"""The control: the same loss in a second process."""

_RECIPE = [
    *("--optimizer", "adam", "--adam-betas", "(0.9, 0.98)", "--lr-scheduler", "inverse_sqrt", "--warmup-updates", "50"),
    *("--clip-norm", "0.5", "--dropout", "0.1", "--num-workers", "0", "--max-update", "1000000", "--seed", "1"),
    *("--no-save", "--disable-validation", "--no-progress-bar"),
]


def _measure(data: Path, family: str, options: argparse.Namespace, progress: tqdm) -> dict:
    """Return the seconds of an update in each turn, by loss.

    Args:
        data: DATA_BIN, with ``teacher.safetensors`` in it.
        family: name in `benchmarks.small_students.FAMILIES`.
        options: ``repeats`` turns of ``updates`` after ``warmup`` updates, ``max_tokens``.
        progress: updated by 1 each turn.
    """
    seconds: dict[str, list[float]] = {}
    with ExitStack() as stack:
        turns = {}
        for loss in (*LOSSES, AGAIN):
            command = _command(data, family, loss.split(",")[0], options)
            turns[loss] = stack.enter_context(_turns(command, options))
        for repeat in range(options.repeats):
            # Every other round is reversed, so that no loss always comes first.
            for loss in list(turns)[:: -1 if repeat % 2 else 1]:
                seconds.setdefault(loss, []).append(next(turns[loss]))
                progress.update()
    return {"family": family, "updates": options.updates, "seconds": seconds}


def _command(data: Path, family: str, loss: str, options: argparse.Namespace) -> list[str]:
    teacher = ["--teacher-path", str(data / "teacher.safetensors")] if loss == "dynamic_teacher_loss" else []
    more = ["--max-tokens", str(options.max_tokens), "--log-interval", str(options.updates)]
    folder = ["--save-dir", str(data / "checkpoints")]
    return [str(data), *FAMILIES[family], *_RECIPE, *LOSSES[loss], *teacher, *more, *folder]


@contextmanager
def _turns(command: list[str], options: argparse.Namespace) -> Iterator[Iterator[float]]:
    """Start ``fairseq-train`` and yield an iterator: each `next` runs a turn and returns its seconds an update.

    The warm-up updates are made first. The process is started anew, not forked: PyTorch's threads do not survive a
    fork.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=train_in_turns, args=(theirs, command, options.warmup, options.updates))
    process.start()
    theirs.close()
    try:
        _received(ours, process)
        yield _asked(ours, process)
    finally:
        ours.close()  # the process ends when it notices
        process.join(60)
        if process.is_alive():
            process.terminate()
            process.join()


def _asked(connection, process) -> Iterator[float]:
    while True:
        connection.send("turn")
        yield _received(connection, process)


def _received(connection, process) -> float | None:
    try:
        return connection.recv()
    except (EOFError, ConnectionResetError):
        process.join(60)
        raise TrainingFailed(f"fairseq-train ended with exit code {process.exitcode}; its messages are above") from None


def _summary(records: Sequence[dict]) -> str:
    """Return a table: milliseconds an update by loss, median and range, and the ratio to fairseq's loss."""
    rows = []
    for record in records:
        base = record["seconds"]["label_smoothed_cross_entropy"]
        for loss, own in record["seconds"].items():
            pairs = [a / b for a, b in zip(own, base, strict=True)]
            low, middle, high = (1000 * f(own) for f in (min, statistics.median, max))
            ratio = statistics.median(own) / statistics.median(base)
            rows.append(
                [
                    record["family"],
                    loss,
                    f"{middle:.1f} ({low:.1f} to {high:.1f})",
                    f"{ratio:.3f}",
                    f"{statistics.median(pairs):.3f} ({min(pairs):.3f} to {max(pairs):.3f})",
                ]
            )
    titles = ["student", "loss", "update, ms: median (range)", "ratio of medians", "ratio turn by turn: median (range)"]
    return tabulate(rows, headers=titles, tablefmt="github", disable_numparse=True)


def _write_teacher(data: Path) -> None:
    words = [line.rsplit(" ", 1)[0] for line in (data / "dict.en.txt").read_text("utf-8").splitlines()]
    symbols = ["<s>", "<pad>", "</s>", "<unk>", *words]
    teacher = Teacher(BASE_FEATURES, len(symbols), seed=1, initial_coefficient=PHI)
    # No cross-entropy updates: every update that is timed uses the teacher.
    settings = TeacherSettings(
        loss_scale=1 / PHI, cross_entropy_mix=0.0, total_updates=1_000_000, cross_entropy_updates=0
    )
    save_teacher(data / "teacher.safetensors", teacher, Vocabulary.of_symbols(symbols), settings)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks.cost.run overhead", description=__doc__.splitlines()[0])
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=["transformer", "lstm"])
    parser.add_argument("--vocabulary", type=int, default=10_000, help="words (default %(default)s)")
    parser.add_argument("--max-tokens", type=int, default=1000, help="of a batch (default %(default)s)")
    parser.add_argument("--warmup", type=int, default=10, help="updates before the first turn (default %(default)s)")
    parser.add_argument("--updates", type=int, default=10, help="of a turn (default %(default)s)")
    parser.add_argument("--repeats", type=int, default=15, help="turns of each process (default %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all turns as JSON")
    options = parser.parse_args(arguments)
    for name, least in (("vocabulary", 10), ("max_tokens", 40), ("warmup", 0), ("updates", 1), ("repeats", 1)):
        if getattr(options, name) < least:
            parser.error(f"--{name.replace('_', '-')}: {getattr(options, name)}; expected at least {least}")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line ``arguments``."""
    options = _parse(arguments)
    # Read when the processes import fairseq.
    os.environ.setdefault("LOGLEVEL", "WARNING")
    try:
        records = _measured(options)
    except TrainingFailed as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if options.json:
        options.json.write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")
    print(_summary(records))
    return 0


def _measured(options: argparse.Namespace) -> list[dict]:
    total = len(options.families) * options.repeats * (len(LOSSES) + 1)
    with tempfile.TemporaryDirectory() as folder, tqdm(total=total, unit="turn", file=sys.stderr) as progress:
        data = write_random_corpus(Path(folder), options.vocabulary)
        _write_teacher(data)
        records = []
        for family in options.families:
            progress.set_description(family)
            records.append(_measure(data, family, options, progress))
    return records
