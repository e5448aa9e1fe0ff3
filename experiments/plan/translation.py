"""The plan of a setting of a translation grid: teachers and students as steps (`decoding` has the rest)."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from experiments.grid import Loss, Student, TranslationGrid
from experiments.plan.command_lines import Words, inspect, taught_criterion, validation, words, worker
from experiments.plan.decoding import Decoding
from experiments.plan.runs import Runs, Trial, run_of_seed
from experiments.plan.setting import Setting
from experiments.programs.checkpoints import mend_last_checkpoint
from experiments.programs.step import Step
from experiments.records.training_logs import has_diverged, share_in_log, updates_in_log
from fairseq_l2t.pairs.prepare import RECORD
from fairseq_l2t.pairs.programs import console_script

__all__ = ["Experiment"]


class Experiment(Runs):
    """The steps of a setting; see `Runs` for the arguments."""

    def __init__(self, grid: TranslationGrid, setting: Setting) -> None:
        super().__init__(grid, setting)
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
        folder, data, step = self.setting.teacher(name), self.setting.data_bin, self.step_name("teacher", name)
        program = console_script("l2t-train-teacher")
        return Step(
            step,
            (program, str(data), *self.teacher_words(name), "--save-dir", str(folder)),
            self.logs,
            (data / RECORD,),
            work=folder,
            resume=("--resume-or-start",),
            progress=share_in_log(self.logs / f"{step}.log"),
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
        name = run_of_seed(student, loss, seed)
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
