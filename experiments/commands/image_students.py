"""Trains the students of one loss in one setting of an image grid, and records each of them.

Students with tuning seeds come first; they choose option and learning rate. The test images are looked at once for
each student that counts, at its best checkpoint on dev.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path

import torch

from experiments.grid import ImageGrid, ImageSetting, load_grid
from experiments.plan.images import ImageExperiment, runs_left
from experiments.records.images import Record, RunKey, append_record, read_records, teacher_digest, teacher_file
from fairseq_l2t.classification.evaluation import error_on_test
from fairseq_l2t.classification.runs import new_training
from fairseq_l2t.core import NonFiniteError
from fairseq_l2t.pairs.parallel_text import BadInput

__all__ = ["add_options", "run"]


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this program."""
    parser.add_argument("grid", type=Path, metavar="GRID.yaml")
    parser.add_argument("--output-dir", type=Path, required=True, metavar="DIR", help="folder of the records")
    parser.add_argument("--setting", required=True, metavar="NAME", help="such as digits.noise40.mlp-64-64")
    parser.add_argument("--loss", required=True, metavar="NAME", help="one of the grid's")
    parser.add_argument("--data-dir", type=Path, metavar="DIR", help="folder of the images")


def run(options: argparse.Namespace) -> None:
    """Train and record the students that are left.

    Raises:
        BadInput: the grid has no such setting or loss.
    """
    torch.set_num_threads(1)
    grid = load_grid(options.grid)
    if not isinstance(grid, ImageGrid):
        raise BadInput(f"{options.grid}: a translation grid, expected one of images")
    settings = {setting.name: setting for setting in grid.settings}
    for option, known in (("setting", settings), ("loss", grid.losses)):
        if getattr(options, option) not in known:
            raise BadInput(f"--{option}: {getattr(options, option)!r}, expected one of {', '.join(known)}")
    experiment = ImageExperiment(options.grid, grid, options.output_dir, options.data_dir)
    setting = settings[options.setting]
    while left := runs_left(grid, setting, options.loss, read_records(experiment.records, grid)):
        for key in left:
            record = _train(experiment, setting, key)
            append_record(experiment.records, record)
            print(*key[1:], f"dev error {record['dev_error']:.2f} %", flush=True)


def _train(experiment: ImageExperiment, setting: ImageSetting, key: RunKey) -> Record:
    """Train one student and return its record; one that ends in NaN is wrong everywhere."""
    _, choice, lr, seed = key
    start, output = time.monotonic(), experiment.output
    given = experiment.student_options(setting, choice, lr, seed)
    grid = experiment.grid
    record: Record = {"setting": setting.name, "student": grid.student, "options": choice, "lr": lr, "seed": seed}
    if given.teacher_path is not None:
        record["teacher"] = teacher_digest(output, setting, given.teacher_path)
        given = replace(given, teacher_path=str(teacher_file(output, setting, given.teacher_path)))
    training = new_training(given)
    student = training.student
    record["protocol"] = student.splits.protocol
    try:
        best = training.run()
    except NonFiniteError as error:
        return {**record, "dev_error": 100.0, "test_error": 100.0, "update": 0, "failed": str(error)}
    if training.best_omega is not None:
        student.set_omega(training.best_omega)
    # The test errors of tuning seeds are never looked at.
    test = error_on_test(student) if seed in grid.seeds else None
    seconds = round(time.monotonic() - start, 2)
    return {**record, "dev_error": 100 * best.dev_error, "test_error": test, "update": best.update, "seconds": seconds}
