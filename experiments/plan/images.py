"""The plan of an image grid: teachers, then the students of each loss, one program a loss and setting.

A student takes about a second, less than the start of a program: one program trains all students of a loss, first
those that choose option and learning rate, then those that count.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

from experiments.grid import ImageGrid, ImageSetting
from experiments.plan.command_lines import Words, worker
from experiments.programs.step import Step
from experiments.records.images import RUNS, Record, RunKey, read_records, teacher_file
from experiments.records.training_logs import share_in_log
from fairseq_l2t.classification.options import (
    TrainOptions,
    TrainTeacherOptions,
    criterion_of,
    parse,
    plan_of,
)
from fairseq_l2t.pairs.parallel_text import BadInput
from fairseq_l2t.pairs.programs import console_script

__all__ = ["ImageExperiment", "chosen_options", "runs_left"]


@dataclass(frozen=True)
class ImageExperiment:
    """The steps of an image grid.

    Args:
        path: the grid file.
        grid: its content.
        output: the folder of the run.
        data_dir: folder of the images; None: only images that are installed are used.
    """

    path: Path
    grid: ImageGrid
    output: Path
    data_dir: Path | None = None

    @property
    def records(self) -> Path:
        """The file of the records."""
        return self.output / RUNS

    def steps(self) -> Iterator[Step]:
        """Yield the teachers and the students of each loss."""
        for setting in self.grid.settings:
            yield from (self._train_teacher(setting, name) for name in self.grid.teachers)
        for setting in self.grid.settings:
            yield from (self._train_students(setting, loss) for loss in self.grid.losses)

    def _train_teacher(self, setting: ImageSetting, name: str) -> Step:
        # The program itself refuses a folder of other options.
        return Step(
            _teacher_step(setting, name),
            (console_script("l2t-classify"), "train-teacher", *self.teacher_words(setting, name)),
            self.output / "logs",
            outcome=teacher_file(self.output, setting, name).exists,
            progress=share_in_log(self.output / "logs" / f"{_teacher_step(setting, name)}.log"),
        )

    def _train_students(self, setting: ImageSetting, loss: str) -> Step:
        taught = [self.student_options(setting, choice, 1.0, 1).teacher_path for choice in self.grid.losses[loss]]
        data_dir = () if self.data_dir is None else ("--data-dir", str(self.data_dir))
        options = ("--output-dir", str(self.output), "--setting", setting.name, "--loss", loss, *data_dir)
        return Step(
            f"{setting.name}.students.{loss}",
            (*worker("image-students"), str(self.path), *options),
            self.output / "logs",
            after=tuple(_teacher_step(setting, name) for name in dict.fromkeys(taught) if name),
            outcome=lambda: not runs_left(self.grid, setting, loss, read_records(self.records, self.grid)),
            by_outcome=True,
        )

    def teacher_words(self, setting: ImageSetting, name: str) -> Words:
        """Return the options of a teacher's training."""
        folder = teacher_file(self.output, setting, name).parent
        own = shlex.split(self.grid.teachers[name])
        return (*self._shared_words(setting), *own, "--save-dir", str(folder), "--resume-or-start")

    def student_options(self, setting: ImageSetting, choice: str, lr: float, seed: int) -> TrainOptions:
        """Return the parsed options of a student's training; ``--teacher-path`` is a name of the grid.

        Raises:
            BadInput: there is no such option or value.
        """
        own = (*shlex.split(choice), "--lr", str(lr), "--seed", str(seed), "--save-dir", "unused")
        options: TrainOptions = self._parsed("train", (*self._shared_words(setting), *own))
        return options

    def refuse_bad_options(self) -> None:
        """Parse the options of all runs.

        Raises:
            BadInput: a program would refuse them; names the grid.
        """
        for setting in self.grid.settings:
            for name in self.grid.teachers:
                teacher: TrainTeacherOptions = self._parsed("train-teacher", self.teacher_words(setting, name))
                self._require(partial(plan_of, teacher))
            for choice in (choice for choices in self.grid.losses.values() for choice in choices):
                student = self.student_options(setting, choice, self.grid.learning_rates[0], 1)
                self._require(partial(criterion_of, student))
                if student.teacher_path is not None and student.teacher_path not in self.grid.teachers:
                    known = ", ".join(self.grid.teachers)
                    raise BadInput(f"{self.path}: --teacher-path {student.teacher_path}; expected one of {known}")

    def _shared_words(self, setting: ImageSetting) -> Words:
        own = ("--data", setting.data, "--label-noise", str(setting.label_noise), "--student", setting.student)
        data = () if self.data_dir is None or setting.data == "digits" else ("--data-dir", str(self.data_dir))
        return (*own, *data, *shlex.split(self.grid.student))

    def _parsed(self, command: str, arguments: Words) -> Any:
        try:
            return parse([command, *arguments]).options
        except ValueError as error:
            raise BadInput(f"{self.path}: l2t-classify {command}: {error}") from error

    def _require(self, make: Callable[[], object]) -> None:
        try:
            make()
        except ValueError as error:
            raise BadInput(f"{self.path}: {error}") from error


def runs_left(grid: ImageGrid, setting: ImageSetting, loss: str, records: dict[RunKey, Record]) -> list[RunKey]:
    """Return the students of a loss without a record: those that choose, or, when these are there, those that count."""
    choices, rates, seeds = grid.losses[loss], grid.learning_rates, grid.tuning_seeds
    wanted = [(setting.name, one, lr, seed) for one in choices for lr in rates for seed in seeds]
    chosen = chosen_options(grid, setting, loss, records)
    if chosen is not None:
        wanted = [(setting.name, *chosen, seed) for seed in grid.seeds]
    return [run for run in wanted if run not in records]


def chosen_options(
    grid: ImageGrid, setting: ImageSetting, loss: str, records: dict[RunKey, Record]
) -> tuple[str, float] | None:
    """Return option and learning rate with the least mean dev error of the tuning seeds; None: not all have run."""
    errors = {}
    for options in grid.losses[loss]:
        for lr in grid.learning_rates:
            found = [records.get((setting.name, options, lr, seed)) for seed in grid.tuning_seeds]
            if any(record is None for record in found):
                return None
            errors[options, lr] = mean(record["dev_error"] for record in found if record is not None)
    return min(errors, key=errors.__getitem__)


def _teacher_step(setting: ImageSetting, name: str) -> str:
    return f"{setting.name}.teacher.{name}"
