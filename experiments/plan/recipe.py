"""The plan of a recipe on prepared data: a teacher, the three students of each seed, and their decodings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from experiments.grid.recipe import Recipe
from experiments.plan.command_lines import Words, data_words, generate, taught_criterion, validation, words
from experiments.programs.checkpoints import mend_last_checkpoint
from experiments.programs.step import Step
from experiments.records.training_logs import lines_in_file, updates_in_log
from fairseq_l2t.pairs.parallel_text import LANGUAGES
from fairseq_l2t.pairs.prepare import RECORD
from fairseq_l2t.pairs.programs import console_script

__all__ = ["SYSTEMS", "RecipePlan"]

SYSTEMS = ("ce", "ls", "l2t")
"""Cross-entropy, which is the baseline, label smoothing, and the learned loss."""


@dataclass(frozen=True)
class RecipePlan:
    """The steps of a recipe: ``data_bin`` in, everything else under ``output``."""

    data_bin: Path
    output: Path
    recipe: Recipe

    @property
    def teacher(self) -> Path:
        """The folder of the teacher."""
        return self.output / "teacher"

    @property
    def teacher_file(self) -> Path:
        """The file of the teacher."""
        return self.teacher / "teacher.safetensors"

    def hypotheses(self, system: str, seed: int) -> Path:
        """The translation of the test set, one sentence a line."""
        return self.output / "hypotheses" / f"{system}.seed{seed}.txt"

    def steps(self) -> list[Step]:
        """Teacher and students first, so that the long ones start early, then the decoding of each."""
        students = [(system, seed) for seed in self.recipe.seeds for system in SYSTEMS]
        training = [self._train(system, seed) for system, seed in students]
        return [self._train_teacher(), *training, *(self._decode(system, seed) for system, seed in students)]

    @property
    def _data(self) -> Words:
        return data_words(self.data_bin, LANGUAGES)

    def _train_teacher(self) -> Step:
        teacher = self.recipe.teacher
        own = words("--teacher-updates {} --save-dir {}", teacher.updates, self.teacher)
        return Step(
            "teacher",
            (console_script("l2t-train-teacher"), *self._data, *teacher.options, *own),
            self.output / "logs",
            inputs=(self.data_bin / RECORD,),
            work=self.teacher,
            resume=("--resume",),
            progress=lines_in_file(self.teacher / "teacher_log.jsonl", max(1, teacher.updates)),
        )

    def _train(self, system: str, seed: int) -> Step:
        recipe, name = self.recipe, f"train-{system}.seed{seed}"
        folder, logs = self._checkpoints(system, seed), self.output / "logs"
        inputs: tuple[Path, ...] = (self.data_bin / RECORD,)
        after: tuple[str, ...] = ()
        if system == "l2t":
            inputs, after = (*inputs, self.teacher_file), ("teacher",)
        own = "--max-update {} --seed {} --log-format json --log-interval 50 --save-dir {}"
        return Step(
            name,
            (
                *(console_script("fairseq-train"), *self._data, *recipe.options),
                *validation(recipe.validate_every, recipe.validation_beam),
                *(*self._loss(system), *words(own, recipe.updates, seed, folder), *recipe.overrides),
            ),
            logs,
            inputs,
            after,
            work=folder,
            progress=updates_in_log(logs / f"{name}.log", recipe.updates),
            mend=mend_last_checkpoint,
        )

    def _loss(self, system: str) -> Words:
        smoothed = "--criterion label_smoothed_cross_entropy --label-smoothing {}"
        losses = {
            "ce": words("--criterion cross_entropy"),
            "ls": words(smoothed, self.recipe.label_smoothing),
            "l2t": (*taught_criterion(self.teacher_file), *self.recipe.taught),
        }
        return losses[system]

    def _checkpoints(self, system: str, seed: int) -> Path:
        return self.output / "checkpoints" / f"{system}.seed{seed}"

    def _decode(self, system: str, seed: int) -> Step:
        name, logs = f"decode-{system}.seed{seed}", self.output / "logs"
        checkpoint = self._checkpoints(system, seed) / "checkpoint_best.pt"
        command = (*generate(self._data, "test", self.recipe.beam, ""), "--path", str(checkpoint))
        after = (f"train-{system}.seed{seed}",)
        return Step(name, command, logs, inputs=(checkpoint,), after=after, output=self.decoded(system, seed))

    def decoded(self, system: str, seed: int) -> Path:
        """The output of fairseq-generate for the test set."""
        return self.output / "logs" / f"decode-{system}.seed{seed}.out"
