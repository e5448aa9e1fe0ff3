#!/usr/bin/env python
"""A grid of experiments: corpora, noise, students, losses, learning rates and seeds, by the console scripts.

    python examples/translation/experiment.py examples/translation/grids/cpu.yaml --raw-dir DIR --output-dir out/cpu

prepares the corpora, trains teachers and students, decodes the test set once for each student that counts, and writes
``SETTING/runs.jsonl`` (a line a run) and ``SETTING/teachers.jsonl`` for every corpus with every share of noise, and
``results.md`` and plots of them. What is finished is not done again: the same command goes on after an interruption.
``--settings`` and ``--students`` run some of them alone (``--students`` without a name: the teachers), ``--teachers``
takes the teachers of an earlier run, such as those kept in ``results/``. ``--dry-run`` lists the commands, ``--report``
writes tables and plots of the records that are there; it needs nothing else, so that the records alone can be kept.
The options of all trainings are parsed before the first one starts, by the parsers of their programs.
Paths are written into commands, by which a run is known again, as they are seen from the current folder: go on from
the folder where it was begun.

How a student is chosen: every learning rate (and every choice of a loss, such as the amount of label smoothing) is
trained with the first seed; the one with the best dev BLEU is trained with the other seeds. A run that ends in NaN
counts with what it had before. Nothing looks at the test set before that.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from commands import run_program, run_steps
from experiment_options import refuse_bad_options
from experiment_report import records_of, write_report
from experiment_runs import Outcome, refuse_kept_records
from experiment_settings import Setting, settings_of
from experiment_steps import Experiment
from grid import load_grid

from fairseq_l2t.pairs.parallel_text import BadInput, BadOption
from fairseq_l2t.pairs.prepare import PrepareSettings, prepare
from fairseq_l2t.storage import lock_run_folder
from toy_corpus.corpus import write_corpus

__all__ = ["main"]

_RAW = Path(__file__).resolve().parents[3] / "shared" / "data"


def run_experiment(options: argparse.Namespace) -> None:
    """Do what is not done yet of a grid, and report.

    Raises:
        BadInput: a grid or corpus that cannot be used.
        RunFolderError: another experiment uses the folder.
        StepFailed: a program ended with an error.
    """
    grid = load_grid(options.grid)
    output, teachers = _as_seen_from_here(options.output_dir), options.teachers and _as_seen_from_here(options.teachers)
    all_settings = settings_of(grid, output, teachers)
    settings = _chosen(all_settings, options)
    _require_students(settings, options.students)
    experiments = [Experiment(grid, setting) for setting in settings]
    if options.report:
        # Reads alone: it may be wanted while runs are made, and with a grid that has been changed.
        if not records_of(settings):
            names = ", ".join(setting.name for setting in settings)
            raise BadInput(
                f"--output-dir: {output}, expected the folder of a grid that was run, for --report; it "
                f"has no records of {names}"
            )
        write_report(grid, all_settings, output)
        return
    there = [one for one in experiments if _is_there(one.setting, options)]
    if not there:
        raise BadInput(f"--raw-dir: {options.raw_dir}; none of the corpora of {options.grid} is there")
    if options.teachers:
        _name_teachers(there, options.teachers)
    for experiment in there:
        if not experiment.has_logs:
            refuse_kept_records(experiment.setting)
    outcome = Outcome(experiments)
    steps = [step for experiment in there for step in experiment.steps(options.students)]
    if options.dry_run:
        for step in steps:
            print(f"{step.name}\n  $ {shlex.join(step.command)}")
        print(f"{len(steps)} steps")
        return
    with lock_run_folder(output):
        for experiment in there:
            _prepare(experiment.setting, options)
            experiment.refuse_other_vocabulary()
            experiment.refuse_damaged_teachers()
        refuse_bad_options(options.grid, steps)
        run_steps(steps, options.jobs, on_done=outcome.note)
        outcome.write()
        write_report(grid, all_settings, output)


def _as_seen_from_here(path: Path) -> Path:
    """The same for all spellings of a folder: relative where it is below the current one."""
    path = path.resolve()
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _chosen(settings: Sequence[Setting], options: argparse.Namespace) -> list[Setting]:
    names = [setting.name for setting in settings]
    for name in options.settings or ():
        if name not in names:
            raise BadInput(f"--settings: {name!r}, expected some of {', '.join(names)}")
    return [setting for setting in settings if options.settings is None or setting.name in options.settings]


def _name_teachers(experiments: Sequence[Experiment], folder: Path) -> None:
    found = [path for experiment in experiments for path in experiment.earlier_teachers()]
    if not found:
        raise BadInput(f"--teachers: {folder}, expected the folder of a run of this grid, with SETTING/teachers in it")
    print("not trained anew:", *found, sep="\n  ", flush=True)


def _require_students(settings: Sequence[Setting], names: Sequence[str] | None) -> None:
    known = list(dict.fromkeys(name for setting in settings for name in setting.corpus.students))
    for name in names or ():
        if name not in known:
            raise BadInput(f"--students: {name!r}, expected some of {', '.join(known)}")


def _is_there(setting: Setting, options: argparse.Namespace) -> bool:
    corpus = setting.corpus
    if corpus.raw is None or (options.raw_dir / corpus.raw).is_dir():
        return True
    if options.settings:
        raise BadInput(
            f"--settings: {setting.name}, expected its corpus in --raw-dir; no folder {options.raw_dir / corpus.raw}"
        )
    print(f"{setting.name}: left out, no folder {options.raw_dir / corpus.raw}", flush=True)
    return False


def _prepare(setting: Setting, options: argparse.Namespace) -> None:
    corpus = setting.corpus
    text = setting.folder / "raw" if corpus.raw is None else options.raw_dir / corpus.raw
    if corpus.embedded is not None:
        write_corpus(text, corpus.embedded)
    settings = PrepareSettings(corpus.vocabulary, noise=setting.noise, train_limit=corpus.train_limit, part=corpus.part)
    try:
        prepare(text, setting.folder / "data", settings, replace=False)
    except BadOption as error:
        key = "noise" if error.option == "noise" else f"corpora.{corpus.name}.{error.option}"
        raise BadInput(f"{options.grid}: {key}: {error.reason}") from None


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("grid", type=Path, metavar="GRID.yaml")
    parser.add_argument("--output-dir", type=Path, required=True, help="what was finished there before is kept")
    parser.add_argument(
        "--raw-dir",
        type=Path,
        default=_RAW,
        metavar="DIR",
        help="folder of the corpora that a grid names as raw (default: ../shared/data)",
    )
    parser.add_argument(
        "--settings",
        nargs="+",
        metavar="NAME",
        help="only these, such as multi30k.noise30 (default: every corpus with every share of noise)",
    )
    parser.add_argument(
        "--students", nargs="*", metavar="NAME", help="train only these; without a name, teachers alone (default: all)"
    )
    parser.add_argument(
        "--teachers",
        type=Path,
        metavar="DIR",
        help="the --output-dir of an earlier run: teachers found there are used, not trained anew",
    )
    parser.add_argument("--jobs", type=int, default=2, help="programs at a time, one thread each (default 2)")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--dry-run", action="store_true", help="list the commands")
    what.add_argument("--report", action="store_true", help="run nothing, report what is there")
    options = parser.parse_args(arguments)
    if options.jobs < 1:
        parser.error(f"--jobs: {options.jobs}, expected at least 1")
    return run_program("experiment.py", lambda: run_experiment(options))


if __name__ == "__main__":
    sys.exit(main())
