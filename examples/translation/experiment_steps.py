"""What a grid makes of each corpus and share of noise: teachers and students, as steps; what is decoded is in
`experiment_decoding`."""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from checkpoints import mend_last_checkpoint
from commands import lines_in_file, updates_in_log
from experiment_decoding import Decoding
from experiment_settings import Setting
from grid import Grid, Loss, Options, Student
from runs import has_diverged, read_run, teacher_lines
from settings import validation
from steps import Step, difference

import fairseq_l2t
from fairseq_l2t.inspection import read_dictionary
from fairseq_l2t.pairs.parallel_text import BadInput
from fairseq_l2t.pairs.prepare import RECORD
from fairseq_l2t.pairs.programs import console_script
from fairseq_l2t.storage import TeacherFileError, load_teacher

__all__ = ["Experiment", "Trial"]


@dataclass(frozen=True)
class Trial:
    """One training of the first seed: the numbers of a learning rate and of a choice of the loss."""

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
    def options(self) -> Options:
        """What it has beside the student's and the loss's."""
        return ("--lr", f"{self.student.learning_rates[self.rate]:g}", *self.loss.choices[self.choice])


class Experiment:
    """The steps of a setting.

    Args:
        grid: what is run.
        setting: where.
    """

    def __init__(self, grid: Grid, setting: Setting) -> None:
        self.grid, self.setting = grid, setting
        self.students = [grid.students[name] for name in setting.corpus.students]
        self._logs = setting.folder / "logs"
        self.decoding = Decoding(self)

    @property
    def used_teachers(self) -> list[str]:
        """The teachers that losses name."""
        return list(dict.fromkeys(loss.teacher for loss in self.grid.losses.values() if loss.teacher))

    @property
    def logs(self) -> Path:
        """The folder of what programs say."""
        return self._logs

    @property
    def has_logs(self) -> bool:
        """Whether anything was run here; a folder of kept records has none of its logs."""
        return self._logs.is_dir()

    @property
    def watched(self) -> list[Student]:
        """The students whose gradients are looked at: some of the grid's, where pairs are misaligned."""
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
        if seed == self.grid.seeds[0]:
            return self.chosen(student, loss).name
        return f"{student.name}.{loss.name}.seed{seed}"

    def log(self, name: str) -> Path:
        """Return the log of a training run."""
        return self._logs / f"{self.train_name(name)}.log"

    def checkpoints(self, name: str) -> Path:
        """Return the folder of a training run."""
        return self.setting.folder / "checkpoints" / name

    def is_finished(self, name: str) -> bool:
        """Whether a training run has come to its end."""
        return (self._logs / f"{self.train_name(name)}.done").exists()

    def steps(self, only: Collection[str] | None = None) -> Iterator[Step]:
        """Yield teachers, trials, further seeds, decodings and comparisons, in an order that keeps cores busy.

        Args:
            only: names of the students that are trained; None: all.
        """
        losses = self.grid.losses.values()
        students = [student for student in self.students if only is None or student.name in only]
        for name in self.used_teachers:
            if not self.setting.has_teacher(name):
                yield self._train_teacher(name)
        pairs = [(student, loss) for student in students for loss in losses]
        for student, loss in pairs:
            yield from (self._trial(trial) for trial in self.trials(student, loss))
        for student, loss in pairs:
            yield from (self._further(student, loss, seed) for seed in self.grid.seeds[1:])
        yield from self.decoding.steps(students)
        for name in self.used_teachers:
            if self.grid.teachers[name].updates:
                yield self._inspect(name)
        yield from (self._shares(student) for student in students if student in self.watched)

    # --- training ---------------------------------------------------------------------------------------------

    def step_name(self, kind: str, name: str) -> str:
        """Return the name of a step, by which others wait for it."""
        return f"{self.setting.name}.{kind}.{name}"

    def train_name(self, name: str) -> str:
        """Return the name of the step of a training run."""
        return self.step_name("train", name)

    @property
    def data(self) -> Options:
        """DATA_BIN and its languages, as fairseq's programs take them."""
        source, target = self.setting.corpus.languages
        return (str(self.setting.data_bin), "--source-lang", source, "--target-lang", target)

    def _train_teacher(self, name: str) -> Step:
        teacher, folder = self.grid.teachers[name], self.setting.teacher(name)
        command = (
            console_script("l2t-train-teacher"),
            str(self.setting.data_bin),
            *self._teacher_options(name),
            "--save-dir",
            str(folder),
        )
        progress = lines_in_file(folder / "teacher_log.jsonl", max(1, teacher.updates))
        return Step(
            self.step_name("teacher", name),
            command,
            self._logs,
            (self.setting.data_bin / RECORD,),
            work=folder,
            resume=("--resume",),
            progress=progress,
        )

    def _teacher_options(self, name: str) -> Options:
        """All but folders."""
        teacher, (_, *languages) = self.grid.teachers[name], self.data
        return (*languages, "--num-workers", "0", *teacher.options, "--teacher-updates", str(teacher.updates))

    def earlier_teachers(self) -> Iterator[Path]:
        """Yield the files of the teachers that are taken from an earlier run.

        Raises:
            BadInput: one that cannot be read, is not trained to its end, or was trained with other options than the
                grid's.
        """
        for name in filter(self.setting.has_teacher, self.used_teachers):
            path = self.setting.teacher(name) / "teacher.safetensors"
            try:
                arguments = load_teacher(path).settings.extra.get("arguments", [])
            except TeacherFileError as error:
                raise BadInput(f"--teachers: {error}") from None
            before, now = arguments[1:-2], list(self._teacher_options(name))  # without DATA_BIN and --save-dir DIR
            if before != now:
                raise BadInput(
                    f"--teachers: {path} was trained with other options than the grid's {name} "
                    f"({difference(before, now)})"
                )
            trained, wanted = len(teacher_lines(path.parent)), self.grid.teachers[name].updates
            if trained != wanted:
                raise BadInput(
                    f"--teachers: {path} is not finished, {trained} of {wanted} updates by "
                    f"{path.with_name('teacher_log.jsonl')}; let its own run go on, or leave --teachers out"
                )
            yield path

    def refuse_damaged_teachers(self) -> None:
        """See that the teachers that were trained here are whole, before the students of damaged ones begin anew.

        Raises:
            BadInput: a finished one is missing, or cannot be read.
        """
        for name in self.used_teachers:
            step = self._train_teacher(name)
            if self.setting.has_teacher(name) or not step.is_done():
                continue
            try:
                load_teacher(self.setting.teacher(name) / "teacher.safetensors")
            except TeacherFileError as error:
                raise BadInput(
                    f"{error}; put the file back as it was, or remove {step.work} and {step.marker} to "
                    "train it and its students anew"
                ) from None

    def refuse_other_vocabulary(self) -> None:
        """See that the teachers of an earlier run are for the dictionary that is there now.

        Raises:
            BadInput: one is for another.
        """
        for path in self.earlier_teachers():
            try:
                load_teacher(path, vocabulary=read_dictionary(self._dictionary).vocabulary)
            except TeacherFileError as error:
                raise BadInput(f"--teachers: {error}") from None

    @property
    def _dictionary(self) -> Path:
        return self.setting.data_bin / f"dict.{self.setting.corpus.languages[1]}.txt"

    def _after_teacher(self, name: str) -> tuple[str, ...]:
        return () if self.setting.has_teacher(name) else (self.step_name("teacher", name),)

    def _inspect(self, name: str) -> Step:
        """What the teacher has learned, in words and pictures."""
        folder, after = self.setting.teacher(name), self._after_teacher(name)
        looks = self.setting.folder / "inspected"
        command = (
            console_script("l2t-inspect"),
            str(folder / "teacher.safetensors"),
            "--dict",
            str(self._dictionary),
            "--log",
            str(folder / "teacher_log.jsonl"),
            "--min-count",
            "20",
            "--plots",
            str(looks / name),
        )
        return Step(
            self.step_name("inspect", name),
            command,
            self._logs,
            (folder / "teacher.safetensors",),
            after,
            output=self._logs / f"{self.step_name('inspect', name)}.txt",
        )

    def _trial(self, trial: Trial) -> Step:
        keep = ("--keep-interval-updates", "-1") if trial.student in self.watched else ()
        return self._train(trial.student, trial.loss, trial.name, self.grid.seeds[0], more=(*trial.options, *keep))

    def _further(self, student: Student, loss: Loss, seed: int) -> Step:
        after = tuple(self.train_name(trial.name) for trial in self.trials(student, loss))
        return self._train(
            student,
            loss,
            f"{student.name}.{loss.name}.seed{seed}",
            seed,
            after=after,
            late=lambda: self.chosen(student, loss).options,
        )

    def _train(self, student: Student, loss: Loss, name: str, seed: int, more: Options = (), **step) -> Step:
        folder, inputs = self.checkpoints(name), (self.setting.data_bin / RECORD,)
        after = step.pop("after", ())
        command = (
            console_script("fairseq-train"),
            *self.data,
            "--num-workers",
            "0",
            *student.options,
            "--max-update",
            str(student.updates),
            "--patience",
            str(student.patience),
            *validation(student.validate_every),
            "--seed",
            str(seed),
            "--log-format",
            "json",
            "--log-interval",
            str(student.validate_every),
            "--save-dir",
            str(folder),
            *self._criterion(loss),
            *more,
        )
        if loss.teacher:
            inputs = (*inputs, self.setting.teacher(loss.teacher) / "teacher.safetensors")
            after = (*after, *self._after_teacher(loss.teacher))
        return Step(
            self.train_name(name),
            command,
            self._logs,
            inputs,
            after,
            work=folder,
            progress=updates_in_log(self.log(name), student.updates),
            mend=mend_last_checkpoint,
            is_result=has_diverged,
            **step,
        )

    def _criterion(self, loss: Loss) -> Options:
        if not loss.teacher:
            return loss.options
        path = self.setting.teacher(loss.teacher) / "teacher.safetensors"
        return (
            "--user-dir",
            str(Path(fairseq_l2t.__file__).parent),
            "--task",
            "l2t_dlf",
            "--criterion",
            "dynamic_teacher_loss",
            "--teacher-path",
            str(path),
            *loss.options,
        )

    # --- where the gradient goes ------------------------------------------------------------------------------

    def shares(self, student: Student) -> Path:
        """Return where the shares of the gradient are written, a line for each checkpoint."""
        return self.setting.folder / "shares" / f"{student.name}.jsonl"

    def _shares(self, student: Student) -> Step:
        """Those of the first seed keep all their checkpoints; see `_trial`."""
        trials = [trial for loss in self.grid.losses.values() for trial in self.trials(student, loss)]
        after = tuple(self.train_name(trial.name) for trial in trials)
        command = (
            sys.executable,
            str(Path(__file__).with_name("gradient_share.py")),
            str(self.setting.data_bin),
            "--json",
            str(self.shares(student)),
            "--plot",
            str(self.shares(student).with_suffix(".png")),
        )
        inputs = tuple(self._logs / f"{name}.done" for name in after)
        return Step(
            self.step_name("shares", student.name),
            command,
            self._logs,
            inputs,
            after,
            late=partial(self._watched_checkpoints, student),
        )

    def _watched_checkpoints(self, student: Student) -> Options:
        chosen = {loss.name: self.chosen(student, loss).name for loss in self.grid.losses.values()}
        return ("--checkpoints", *(f"{loss}={self.checkpoints(name)}" for loss, name in chosen.items()))
