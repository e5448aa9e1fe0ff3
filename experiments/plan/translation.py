"""The plan of a setting of a translation grid: teachers and students as steps (`decoding` has the rest)."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from experiments.grid import Loss, Student, TranslationGrid
from experiments.plan.command_lines import Words, data_words, inspect, taught_criterion, validation, words, worker
from experiments.plan.decoding import Decoding
from experiments.plan.setting import Setting
from experiments.programs.checkpoints import mend_last_checkpoint
from experiments.programs.step import Step
from experiments.records.training_logs import has_diverged, lines_in_file, read_run, updates_in_log
from fairseq_l2t.pairs.prepare import RECORD
from fairseq_l2t.pairs.programs import console_script

__all__ = ["Experiment", "Trial"]


@dataclass(frozen=True)
class Trial:
    """One training of the first seed: the indices of a learning rate and of a choice of the loss."""

    student: Student
    loss: Loss
    rate: int
    choice: int

    @property
    def name(self) -> str:
        """For people and files."""
        choice = f".choice{self.choice + 1}" if len(self.loss.choices) > 1 else ""
        return f"{self.student.name}.{self.loss.name}.lr{self.student.learning_rates[self.rate]:g}{choice}"

    @property
    def options(self) -> Words:
        """Its options beside those of student and loss."""
        return ("--lr", f"{self.student.learning_rates[self.rate]:g}", *self.loss.choices[self.choice])


class Experiment:
    """The steps of a setting.

    Args:
        grid: what is run.
        setting: where.
    """

    def __init__(self, grid: TranslationGrid, setting: Setting) -> None:
        self.grid, self.setting = grid, setting
        self.students = grid.students_of(setting.corpus)
        self.logs = setting.folder / "logs"
        self.data = data_words(setting.data_bin, setting.corpus.languages)
        self.decoding = Decoding(self)

    @property
    def used_teachers(self) -> list[str]:
        """The teachers that losses name."""
        return list(dict.fromkeys(loss.teacher for loss in self.grid.losses.values() if loss.teacher))

    @property
    def has_logs(self) -> bool:
        """Whether anything was run here; a folder of kept records has none of its logs."""
        return self.logs.is_dir()

    @property
    def watched(self) -> list[Student]:
        """The students whose gradients are measured: the grid's ``watched``, where pairs are misaligned."""
        return [student for student in self.students if student.name in self.grid.watched and self.setting.noise]

    def trials(self, student: Student, loss: Loss) -> list[Trial]:
        """Return the trainings of the first seed."""
        choices, rates = range(len(loss.choices)), range(len(student.learning_rates))
        return [Trial(student, loss, rate, choice) for rate in rates for choice in choices]

    def chosen(self, student: Student, loss: Loss) -> Trial:
        """Return the trial with the best dev BLEU, of equals the first that did not diverge; all must have finished."""

        def merit(trial: Trial) -> tuple[float, bool]:
            run = read_run(self.log(trial.name))
            return run.best[1], not run.diverged

        return max(self.trials(student, loss), key=merit)

    def run_name(self, student: Student, loss: Loss, seed: int) -> str:
        """Return the name of a run that counts; that of the first seed is known when all trials have finished."""
        return self.chosen(student, loss).name if seed == self.grid.seeds[0] else _run_of_seed(student, loss, seed)

    def log(self, name: str) -> Path:
        """Return the log of a training run."""
        return self.logs / f"{self.train_name(name)}.log"

    def checkpoints(self, name: str) -> Path:
        """Return the folder of a training run."""
        return self.setting.folder / "checkpoints" / name

    def is_finished(self, name: str) -> bool:
        """Whether a training run has come to its end."""
        return self.marker(self.train_name(name)).exists()

    def marker(self, step: str) -> Path:
        """Return the marker of a step."""
        return self.logs / f"{step}.done"

    def step_name(self, kind: str, name: str) -> str:
        """Return the name of a step, by which others wait for it."""
        return f"{self.setting.name}.{kind}.{name}"

    def train_name(self, name: str) -> str:
        """Return the name of the step of a training run."""
        return self.step_name("train", name)

    def steps(self, only: Collection[str] | None = None) -> Iterator[Step]:
        """Yield teachers, trials, further seeds, decodings and comparisons, in an order that keeps cores busy.

        Args:
            only: names of the students that are trained; None: all.
        """
        students = [student for student in self.students if only is None or student.name in only]
        for name in self.used_teachers:
            if not self.setting.has_teacher(name):
                yield self.train_teacher(name)
        pairs = [(student, loss) for student in students for loss in self.grid.losses.values()]
        for student, loss in pairs:
            yield from (self._trial(trial) for trial in self.trials(student, loss))
        for student, loss in pairs:
            yield from (self._further(student, loss, seed) for seed in self.grid.seeds[1:])
        yield from self.decoding.steps(students)
        for name in self.used_teachers:
            if self.grid.teachers[name].updates:
                yield self._inspect(name)
        yield from (self._shares(student) for student in students if student in self.watched)

    # --- teachers ---------------------------------------------------------------------------------------------

    def teacher_words(self, name: str) -> Words:
        """Return the command line of a teacher's training, without program and folders."""
        teacher = self.grid.teachers[name]
        return (*self.data[1:], "--num-workers", "0", *teacher.options, "--teacher-updates", str(teacher.updates))

    def train_teacher(self, name: str) -> Step:
        """Return the step that trains a teacher."""
        folder, data = self.setting.teacher(name), self.setting.data_bin
        program = console_script("l2t-train-teacher")
        return Step(
            self.step_name("teacher", name),
            (program, str(data), *self.teacher_words(name), "--save-dir", str(folder)),
            self.logs,
            (data / RECORD,),
            work=folder,
            resume=("--resume",),
            progress=lines_in_file(folder / "teacher_log.jsonl", max(1, self.grid.teachers[name].updates)),
        )

    def _after_teacher(self, name: str) -> tuple[str, ...]:
        return () if self.setting.has_teacher(name) else (self.step_name("teacher", name),)

    def _inspect(self, name: str) -> Step:
        """Describe the learned loss, in words and plots."""
        plots, step = self.setting.folder / "inspected" / name, self.step_name("inspect", name)
        return Step(
            step,
            inspect(self.setting.teacher(name), self.setting.dictionary, plots, "--min-count 20"),
            self.logs,
            (self.setting.teacher_file(name),),
            self._after_teacher(name),
            output=self.logs / f"{step}.txt",
        )

    # --- students ---------------------------------------------------------------------------------------------

    def _trial(self, trial: Trial) -> Step:
        keep = ("--keep-interval-updates", "-1") if trial.student in self.watched else ()
        return self._train(trial.student, trial.loss, trial.name, self.grid.seeds[0], more=(*trial.options, *keep))

    def _further(self, student: Student, loss: Loss, seed: int) -> Step:
        after = tuple(self.train_name(trial.name) for trial in self.trials(student, loss))
        name = _run_of_seed(student, loss, seed)
        return self._train(student, loss, name, seed, after=after, late=lambda: self.chosen(student, loss).options)

    def _train(
        self,
        student: Student,
        loss: Loss,
        name: str,
        seed: int,
        more: Words = (),
        after: tuple[str, ...] = (),
        **step: Any,
    ) -> Step:
        folder, criterion = self.checkpoints(name), loss.options or ()
        inputs: tuple[Path, ...] = (self.setting.data_bin / RECORD,)
        if loss.teacher:
            teacher = self.setting.teacher_file(loss.teacher)
            inputs, after = (*inputs, teacher), (*after, *self._after_teacher(loss.teacher))
            criterion = (*taught_criterion(teacher), *criterion)
        patience = () if student.patience is None else ("--patience", str(student.patience))
        length, interval = ("--max-update", str(student.updates), *patience), student.validate_every
        run = words("--seed {} --log-format json --log-interval {} --save-dir {}", seed, interval, folder)
        return Step(
            self.train_name(name),
            (
                *(console_script("fairseq-train"), *self.data, "--num-workers", "0", *student.options),
                *(*length, *validation(interval, student.validation_beam), *run, *criterion, *more),
            ),
            self.logs,
            inputs,
            after,
            work=folder,
            progress=updates_in_log(self.log(name), student.updates),
            mend=mend_last_checkpoint,
            is_result=has_diverged,
            **step,
        )

    # --- share of the gradient that misaligned pairs get ------------------------------------------------------

    def shares(self, student: Student) -> Path:
        """Return where the shares of the gradient are written, a line for each checkpoint."""
        return self.setting.folder / "shares" / f"{student.name}.jsonl"

    def _shares(self, student: Student) -> Step:
        """Those of the first seed keep all their checkpoints; see `_trial`."""
        trials = [trial for loss in self.grid.losses.values() for trial in self.trials(student, loss)]
        after, path = tuple(self.train_name(trial.name) for trial in trials), self.shares(student)
        options = words("{} --json {} --plot {}", self.setting.data_bin, path, path.with_suffix(".png"))
        return Step(
            self.step_name("shares", student.name),
            (*worker("gradient-share"), *options),
            self.logs,
            tuple(self.marker(name) for name in after),
            after,
            late=partial(self._watched_checkpoints, student),
        )

    def _watched_checkpoints(self, student: Student) -> Words:
        chosen = {loss.name: self.chosen(student, loss).name for loss in self.grid.losses.values()}
        return ("--checkpoints", *(f"{loss}={self.checkpoints(name)}" for loss, name in chosen.items()))


def _run_of_seed(student: Student, loss: Loss, seed: int) -> str:
    return f"{student.name}.{loss.name}.seed{seed}"
