#!/usr/bin/env python
"""Compare losses for classifiers: teachers, students under every loss, tables and both figures.

    examples/classification/results.py examples/classification/grids/digits.yaml --output-dir out/digits

Every loss has its learning rate and its option chosen on dev by seeds of their own; test images are looked at once a
student, at its best checkpoint on dev. Everything that is done is kept: the same command goes on after an interruption.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import multiprocessing
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import torch
from classifier_grid import Grid, GridError, Setting, read_grid
from classifier_records import (
    Record,
    append_record,
    chosen_options,
    read_records,
    teacher_digest,
    teacher_file,
    write_tables,
)
from tqdm import tqdm

from fairseq_l2t.classification.evaluation import error_on_test
from fairseq_l2t.classification.options import criterion_of, loss_shape_of, plan_of, recipe_of
from fairseq_l2t.classification.runs import new_training, train_teacher
from fairseq_l2t.cli.classify import command_parser
from fairseq_l2t.core import NonFiniteError
from fairseq_l2t.inspection.classifier_plots import plot_run
from fairseq_l2t.teaching.interruption import Interrupted
from fairseq_l2t.teaching.record import LOG_NAME


def main(arguments: list[str] | None = None) -> int:
    """Run a grid; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0], allow_abbrev=False)
    parser.add_argument("grid", metavar="GRID.yaml")
    parser.add_argument("--output-dir", required=True, type=Path, metavar="DIR")
    parser.add_argument("--data-dir", metavar="DIR", help="folder of the images; of MNIST, for instance")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="students at once (default %(default)s)")
    parser.add_argument("--report", action="store_true", help="tables of what has run, nothing else")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        run_grid(read_grid(options.grid), options)
    except KeyboardInterrupt:
        print("results.py: stopped by SIGINT; the same command goes on", file=sys.stderr)
        return 128 + signal.SIGINT
    except Interrupted as stop:
        print("results.py: stopped; the same command goes on", file=sys.stderr)
        return stop.exit_code
    except BrokenProcessPool:
        print(
            "results.py: error: the process of a student was killed (out of memory?); the same command goes on",
            file=sys.stderr,
        )
        return 1
    except (GridError, NonFiniteError, ValueError, OSError) as error:
        print(f"results.py: error: {error}", file=sys.stderr)
        return 2
    return 0


def run_grid(grid: Grid, options: argparse.Namespace) -> None:
    """Do what is left of ``grid``, then write tables and figures."""
    start, output, file = time.monotonic(), options.output_dir, options.output_dir / "runs.jsonl"
    _check_options(grid, options)
    output.mkdir(parents=True, exist_ok=True)
    if not options.report:
        torch.set_num_threads(1)
        for setting in grid.settings:
            for name in grid.teachers:
                train_teacher(_teacher_options(grid, setting, name, options))
        for phase in (_tuning_runs, _counting_runs):
            _make_runs(phase(grid, read_records(file, grid)), grid, file, options, phase.__doc__.partition(".")[0])
    print(write_tables(grid, read_records(file, grid), output))
    for setting in grid.settings:
        for name in grid.teachers:
            folder = output / setting.name / name
            if (folder / LOG_NAME).exists():  # one that was trained
                print(*plot_run(folder, folder), sep="\n")
    print(f"wall time: {time.monotonic() - start:.0f} s")


def _tuning_runs(grid: Grid, records: dict) -> Iterator[tuple[Setting, str, float, int]]:
    """Students that choose. Yield those not recorded yet."""
    for setting in grid.settings:
        for choices in grid.losses.values():
            for options in choices:
                for lr in grid.learning_rates:
                    for seed in grid.tuning_seeds:
                        if (setting.name, options, lr, seed) not in records:
                            yield setting, options, lr, seed


def _counting_runs(grid: Grid, records: dict) -> Iterator[tuple[Setting, str, float, int]]:
    """Students that count. Yield those not recorded yet."""
    for setting in grid.settings:
        for loss in grid.losses:
            options, lr = chosen_options(grid, setting, loss, records)
            for seed in grid.seeds:
                if (setting.name, options, lr, seed) not in records:
                    yield setting, options, lr, seed


def _make_runs(runs: Iterator, grid: Grid, file: Path, options: argparse.Namespace, what: str) -> None:
    jobs = [(grid, *run, options.output_dir, options.data_dir) for run in runs]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.jobs, mp_context=context, initializer=_begin_worker) as pool:
        try:
            for record in tqdm(pool.map(_run, jobs), desc=what, total=len(jobs), disable=None, unit=" students"):
                append_record(file, record)
        except BaseException:
            pool.shutdown(cancel_futures=True)  # waits for the students under way alone
            raise


def _begin_worker() -> None:
    """Make a process of students end with this one, and leave SIGINT, which a terminal sends to both, to this one."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)

    def end_with_parent() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


def _check_options(grid: Grid, options: argparse.Namespace) -> None:
    """Refuse options of the grid that no run could use, before any run is begun."""
    for setting in grid.settings:
        for name in grid.teachers:
            given = _teacher_options(grid, setting, name, options)
            _checked(grid, lambda given=given: (recipe_of(given), plan_of(given), loss_shape_of(given)))
        for choices in grid.losses.values():
            for choice in choices:
                given = _student_options(grid, setting, choice, grid.learning_rates[0], 1, options.data_dir)
                _checked(grid, lambda given=given: (recipe_of(given), criterion_of(given)))
                if given.teacher_path is not None and given.teacher_path not in grid.teachers:
                    raise GridError(
                        f"{grid.path}: --teacher-path {given.teacher_path}; expected one of {', '.join(grid.teachers)}"
                    )


def _checked(grid: Grid, made: Callable[[], object]) -> None:
    try:
        made()
    except ValueError as error:
        raise GridError(f"{grid.path}: {error}") from error


def _parsed(grid: Grid, command: str, arguments: list[str]) -> argparse.Namespace:
    """Return the options of ``l2t-classify command``; a GridError where there is no such option or value."""
    told = io.StringIO()
    try:
        with contextlib.redirect_stderr(told):
            return command_parser().parse_args([command, *arguments])
    except SystemExit as error:
        raise GridError(f"{grid.path}: {told.getvalue().strip()}") from error


def _arguments(grid: Grid, setting: Setting, data_dir: str | None) -> list[str]:
    found = ["--data", setting.data, "--label-noise", str(setting.label_noise), "--student", setting.student]
    data = [] if data_dir is None or setting.data == "digits" else ["--data-dir", data_dir]
    return [*found, *data, *shlex.split(grid.student)]


def _teacher_options(grid: Grid, setting: Setting, name: str, options: argparse.Namespace) -> argparse.Namespace:
    folder = options.output_dir / setting.name / name
    own = [*shlex.split(grid.teachers[name]), "--save-dir", str(folder), "--resume"]
    return _parsed(grid, "train-teacher", [*_arguments(grid, setting, options.data_dir), *own])


def _student_options(
    grid: Grid, setting: Setting, choice: str, lr: float, seed: int, data_dir: str | None
) -> argparse.Namespace:
    own = [*shlex.split(choice), "--lr", str(lr), "--seed", str(seed), "--save-dir", "unused"]
    return _parsed(grid, "train", [*_arguments(grid, setting, data_dir), *own])


def _run(job: tuple[Grid, Setting, str, float, int, Path, str | None]) -> Record:
    """Train one student and return its record; one that ends in NaN is wrong everywhere."""
    grid, setting, choice, lr, seed, output, data_dir = job
    start = time.monotonic()
    given = _student_options(grid, setting, choice, lr, seed, data_dir)
    record = {"setting": setting.name, "student": grid.student, "options": choice, "lr": lr, "seed": seed}
    if given.teacher_path is not None:
        record["teacher"] = teacher_digest(output, setting, given.teacher_path)
        given.teacher_path = str(teacher_file(output, setting, given.teacher_path))
    training = new_training(given)
    student = training.student
    record["protocol"] = student.splits.protocol
    try:
        best = training.run()
    except NonFiniteError as error:
        return {**record, "dev_error": 100.0, "test_error": 100.0, "update": 0, "failed": str(error)}
    student.set_omega(training.best_omega)
    # The tuning seeds' test errors are never looked at.
    test = error_on_test(student) if seed in grid.seeds else None
    seconds = round(time.monotonic() - start, 2)
    return {**record, "dev_error": 100 * best.dev_error, "test_error": test, "update": best.update, "seconds": seconds}


if __name__ == "__main__":
    sys.exit(main())
