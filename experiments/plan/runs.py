"""The training runs of a setting of a translation grid: their names and files, and which of them count."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from experiments.grid import Loss, Student, TranslationGrid
from experiments.plan.command_lines import Words, data_words
from experiments.plan.setting import Setting
from experiments.records.training_logs import read_run

__all__ = ["Runs", "Trial", "run_of_seed"]


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


class Runs:
    """The training runs of a setting.

    Args:
        grid: what is run.
        setting: where.
    """

    def __init__(self, grid: TranslationGrid, setting: Setting) -> None:
        self.grid, self.setting = grid, setting
        self.students = grid.students_of(setting.corpus)
        self.logs = setting.folder / "logs"
        self.data = data_words(setting.data_bin, setting.corpus.languages)

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
        return self.chosen(student, loss).name if seed == self.grid.seeds[0] else run_of_seed(student, loss, seed)

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


def run_of_seed(student: Student, loss: Loss, seed: int) -> str:
    """Return the name of the run of a further seed."""
    return f"{student.name}.{loss.name}.seed{seed}"
