#!/usr/bin/env python
"""One experiment on prepared data: cross-entropy, label smoothing and a learned loss, by the same recipe.

    python examples/translation/recipe.py DATA_BIN --output-dir out/run --preset multi30k --seeds 1 2 3

runs the console scripts fairseq-train, l2t-train-teacher, fairseq-generate, l2t-compare and l2t-inspect. A
finished step is not done again, so that an interrupted run continues where it was, unless its input has changed. A
training of another command under the same name is refused, so that no finished one is lost.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from checkpoints import mend_last_checkpoint
from commands import lines_in_file, run_program, run_steps, updates_in_log
from settings import PRESETS, RecipeSettings
from steps import Step

import fairseq_l2t
from fairseq_l2t.pairs.parallel_text import LANGUAGES, BadInput, read_lines, write_lines
from fairseq_l2t.pairs.prepare import RECORD, reference_file
from fairseq_l2t.pairs.programs import StepFailed, console_script
from fairseq_l2t.storage import lock_run_folder

BASELINE = "ce"
SYSTEMS = ("ce", "ls", "l2t")


@dataclass(frozen=True)
class Recipe:
    """The steps of an experiment: ``data_bin`` in, everything else under ``output``."""

    data_bin: Path
    output: Path
    settings: RecipeSettings

    @property
    def teacher(self) -> Path:
        """The folder of the teacher."""
        return self.output / "teacher"

    def hypotheses(self, system: str, seed: int) -> Path:
        """The test set as a student translates it, one sentence a line."""
        return self.output / "hypotheses" / f"{system}.seed{seed}.txt"

    def steps(self) -> list[Step]:
        """Teacher and students first, so that the long ones start early, then the decoding of each."""
        training = [self._train_teacher()]
        training += [self._train(system, seed) for seed in self.settings.seeds for system in SYSTEMS]
        return training + [self._decode(system, seed) for seed in self.settings.seeds for system in SYSTEMS]

    def _data(self) -> tuple[str, ...]:
        source, target = LANGUAGES
        return (str(self.data_bin), "--source-lang", source, "--target-lang", target)

    def _train_teacher(self) -> Step:
        teacher = self.settings.teacher
        command = (
            console_script("l2t-train-teacher"),
            *self._data(),
            *teacher.arguments(),
            "--save-dir",
            str(self.teacher),
        )
        return Step(
            "teacher",
            command,
            self.output / "logs",
            inputs=(self.data_bin / RECORD,),
            work=self.teacher,
            resume=("--resume",),
            progress=lines_in_file(self.teacher / "teacher_log.jsonl", teacher.updates),
        )

    def _train(self, system: str, seed: int) -> Step:
        settings, name = self.settings, f"train-{system}.seed{seed}"
        folder, logs = self.output / "checkpoints" / f"{system}.seed{seed}", self.output / "logs"
        inputs, after = (self.data_bin / RECORD,), ()
        if system == "l2t":
            inputs, after = (*inputs, self.teacher / "teacher.safetensors"), ("teacher",)
        command = (
            console_script("fairseq-train"),
            *self._data(),
            *settings.model,
            *settings.training,
            *settings.validation,
            *self._loss(system),
            "--max-update",
            str(settings.updates),
            "--seed",
            str(seed),
            "--log-format",
            "json",
            "--log-interval",
            "50",
            "--save-dir",
            str(folder),
            *settings.overrides,
        )
        return Step(
            name,
            command,
            logs,
            inputs,
            after,
            work=folder,
            progress=updates_in_log(logs / f"{name}.log", settings.updates),
            mend=mend_last_checkpoint,
        )

    def _loss(self, system: str) -> tuple[str, ...]:
        if system == "ce":
            return ("--criterion", "cross_entropy")
        if system == "ls":
            return (
                "--criterion",
                "label_smoothed_cross_entropy",
                "--label-smoothing",
                str(self.settings.label_smoothing),
            )
        return (
            "--user-dir",
            str(Path(fairseq_l2t.__file__).parent),
            "--task",
            "l2t_dlf",
            "--criterion",
            "dynamic_teacher_loss",
            "--teacher-path",
            str(self.teacher / "teacher.safetensors"),
            *self.settings.taught,
        )

    def _decode(self, system: str, seed: int) -> Step:
        checkpoint = self.output / "checkpoints" / f"{system}.seed{seed}" / "checkpoint_best.pt"
        logs = self.output / "logs"
        # --task translation: a taught student is an ordinary checkpoint and needs no plugin
        command = (
            console_script("fairseq-generate"),
            *self._data(),
            "--task",
            "translation",
            "--path",
            str(checkpoint),
            "--gen-subset",
            "test",
            "--beam",
            str(self.settings.beam),
            "--remove-bpe",
            "sentencepiece",
            "--batch-size",
            "64",
        )
        return Step(
            f"decode-{system}.seed{seed}",
            command,
            logs,
            inputs=(checkpoint,),
            after=(f"train-{system}.seed{seed}",),
            output=logs / f"decode-{system}.seed{seed}.out",
        )

    def run(self) -> None:
        """Do what is not done yet, then score and report.

        Raises:
            BadInput: the data is not what prepare.py makes.
            RunFolderError: another run uses the folder.
            StepFailed: a program ended with an error.
        """
        if not (self.data_bin / RECORD).is_file():
            raise BadInput(f"{self.data_bin}: no {RECORD}, expected a DATA_BIN made by prepare.py")
        reference = read_lines(reference_file(self.data_bin))
        steps = self.steps()
        with lock_run_folder(self.output):
            run_steps(steps, self.settings.jobs)
            for step in steps:
                if step.output is not None:
                    self._write_hypotheses(step, len(reference))
            self._report()

    def _write_hypotheses(self, step: Step, count: int) -> None:
        lines = hypotheses_in_order(step.output.read_text(encoding="utf-8").split("\n"))
        if len(lines) != count:
            raise StepFailed(f"{step.output}: {len(lines)} hypotheses for {count} sentences")
        path = self.output / "hypotheses" / f"{step.name.removeprefix('decode-')}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_lines(path, lines)
        write_lines(path.parent / "reference.txt", read_lines(reference_file(self.data_bin)))

    def _report(self) -> None:
        """The tables of l2t-compare, one a seed, their means, the learned loss in words, and where things are."""
        comparisons = []
        for seed in self.settings.seeds:
            result = self.output / f"comparison.seed{seed}.json"
            systems = [str(self.hypotheses(system, seed)) for system in SYSTEMS if system != BASELINE]
            print(f"\nStudents of seed {seed} on the test set:\n", flush=True)
            _show(
                [
                    console_script("l2t-compare"),
                    "--ref",
                    str(self.output / "hypotheses" / "reference.txt"),
                    "--baseline",
                    str(self.hypotheses(BASELINE, seed)),
                    "--systems",
                    *systems,
                    "--json",
                    str(result),
                ]
            )
            comparisons.append(json.loads(result.read_text(encoding="utf-8")))
        if len(comparisons) > 1:
            print("\n" + mean_table(comparisons), flush=True)
        print("\nThe learned loss:\n", flush=True)
        _show(
            [
                console_script("l2t-inspect"),
                str(self.teacher / "teacher.safetensors"),
                "--dict",
                str(self.data_bin / f"dict.{LANGUAGES[1]}.txt"),
                "--log",
                str(self.teacher / "teacher_log.jsonl"),
                "--plots",
                str(self.output / "plots"),
            ]
        )
        print(
            f"\nteacher: {self.teacher}\nstudents: {self.output / 'checkpoints'}\n"
            f"hypotheses: {self.output / 'hypotheses'}\nplots: {self.output / 'plots'}\n"
            f"logs and commands: {self.output / 'logs'}",
            flush=True,
        )


def hypotheses_in_order(lines: Sequence[str]) -> list[str]:
    """The detokenised hypotheses (``D-`` lines) of fairseq-generate's output, in the order of the test set."""
    found = {}
    for line in lines:
        if line.startswith("D-"):
            number, _, text = line.split("\t", 2)
            found[int(number[2:])] = text
    return [found[number] for number in sorted(found)]


def mean_table(comparisons: Sequence[dict]) -> str:
    """Mean score of each system over the seeds, and the mean difference to its own seed's baseline."""
    metrics = list(comparisons[0]["signatures"])
    lines = [f"Means over {len(comparisons)} seeds (difference to the baseline of the same seed):"]
    for index, system in enumerate(SYSTEMS):
        cells = []
        for metric in metrics:
            rows = [[entry[metric]["score"] for entry in comparison["systems"]] for comparison in comparisons]
            mean = sum(row[index] for row in rows) / len(rows)
            delta = sum(row[index] - row[0] for row in rows) / len(rows)
            cells.append(f"{metric} {mean:.2f} ({delta:+.2f})")
        lines.append(f"  {system:<4} " + "  ".join(cells))
    return "\n".join(lines)


def _show(command: Sequence[str]) -> None:
    """Run a command that prints its result.

    Raises:
        StepFailed: it ended with an error.
    """
    result = subprocess.run(command)
    if result.returncode != 0:
        raise StepFailed(f"exit code {result.returncode} of\n$ {shlex.join(command)}")


def run_recipe(data_bin: Path, output: Path, settings: RecipeSettings) -> None:
    """Run an experiment and print its result; see `Recipe.run` for what it raises."""
    Recipe(data_bin, output, settings).run()


def chosen_settings(options: argparse.Namespace) -> RecipeSettings:
    """The preset with the overrides of the command line."""
    settings = PRESETS[options.preset]
    if options.updates is not None:
        settings = settings.with_updates(options.updates)
    teacher = replace(settings.teacher, more=settings.teacher.more + tuple(shlex.split(options.teacher_arguments)))
    if options.teacher_updates is not None:
        teacher = replace(teacher, updates=options.teacher_updates)
    return replace(
        settings,
        teacher=teacher,
        seeds=tuple(options.seeds or settings.seeds),
        jobs=options.jobs,
        overrides=settings.overrides + tuple(shlex.split(options.student_arguments)),
        taught=settings.taught + tuple(shlex.split(options.taught_arguments)),
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    """The overrides of a preset."""
    parser.add_argument("--seeds", type=int, nargs="+", metavar="N", help="student seeds (default: the preset's)")
    parser.add_argument("--updates", type=int, metavar="N", help="length of a student's training")
    parser.add_argument("--teacher-updates", type=int, metavar="N")
    parser.add_argument("--jobs", type=int, default=2, help="programs at a time, one thread each (default 2)")
    parser.add_argument(
        "--student-arguments",
        default="",
        metavar="TEXT",
        help="further fairseq options of all students, not of the teacher's; later ones win",
    )
    parser.add_argument("--teacher-arguments", default="", metavar="TEXT", help="of l2t-train-teacher alone")
    parser.add_argument("--taught-arguments", default="", metavar="TEXT", help="of the taught student alone")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data_bin", type=Path, metavar="DATA_BIN", help="made by prepare.py")
    parser.add_argument("--output-dir", type=Path, required=True)
    parser.add_argument("--preset", choices=sorted(PRESETS), default="multi30k", help="(default %(default)s)")
    add_options(parser)
    options = parser.parse_args(arguments)
    return run_program("recipe.py", lambda: run_recipe(options.data_bin, options.output_dir, chosen_settings(options)))


if __name__ == "__main__":
    sys.exit(main())
