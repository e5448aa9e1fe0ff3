"""The run of a translation grid."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from experiments.grid import TranslationGrid
from experiments.plan.kept_teachers import earlier_teachers, refuse_damaged_teachers, refuse_other_vocabulary
from experiments.plan.option_checks import refuse_bad_options
from experiments.plan.outcome import Outcome
from experiments.plan.setting import Setting, relative_to_here, settings_of
from experiments.plan.translation import Experiment
from experiments.programs.step import Step
from experiments.records.translation import refuse_kept_records
from experiments.report.translation import records_of, write_report
from fairseq_l2t.pairs.parallel_text import BadInput, BadOption
from fairseq_l2t.pairs.prepare import PrepareSettings, prepare
from toy_corpus.corpus import CorpusSettings, write_corpus

__all__ = ["TranslationRun"]

RAW_FOLDER = Path(__file__).resolve().parents[3] / "shared" / "data"
"""The folder of raw corpora beside the checkout."""


class TranslationRun:
    """See `run.GridRun`; data that is ``prepared`` is for all settings."""

    def __init__(self, grid: TranslationGrid, options: argparse.Namespace, prepared: Path | None = None) -> None:
        self._grid, self._options, self._output = grid, options, options.output_dir
        self._raw = options.raw_dir or RAW_FOLDER
        teachers = options.teachers and relative_to_here(options.teachers)
        self._settings = [replace(one, prepared=prepared) for one in settings_of(grid, self._output, teachers)]
        known = [setting.name for setting in self._settings]
        for name in options.settings or ():
            if name not in known:
                raise BadInput(f"--settings: {name!r}, expected some of {', '.join(known)}")
        self._chosen = [one for one in self._settings if options.settings is None or one.name in options.settings]
        students = {student.name: None for one in self._chosen for student in grid.students_of(one.corpus)}
        for name in options.students or ():
            if name not in students:
                raise BadInput(f"--students: {name!r}, expected some of {', '.join(students)}")
        self._experiments = [Experiment(grid, setting) for setting in self._chosen]
        self._there: list[Experiment] = []
        self._outcome = Outcome(self._experiments)

    def steps(self) -> list[Step]:
        """Return the steps of the settings whose corpora are there."""
        self._there = [one for one in self._experiments if self._has_corpus(one.setting)]
        if not self._there:
            raise BadInput(f"--raw-dir: {self._raw}; none of the corpora of {self._options.grid} is there")
        if self._options.teachers:
            self._print_earlier_teachers()
        for experiment in self._there:
            if not experiment.has_logs:
                refuse_kept_records(experiment.setting.folder)
        return [step for experiment in self._there for step in experiment.steps(self._options.students)]

    def prepare(self, steps: Sequence[Step]) -> None:
        """Prepare the corpora, and check teachers and options."""
        for experiment in self._there:
            if experiment.setting.prepared is None:
                self._prepare_corpus(experiment.setting)
            refuse_other_vocabulary(experiment)
            refuse_damaged_teachers(experiment)
        refuse_bad_options(self._options.grid, steps)

    def note(self, step: Step) -> None:
        """Record the result of a step."""
        self._outcome.note(step)

    def report(self) -> None:
        """Write tables and plots, and print the tables."""
        if self._there:  # after a run
            self._outcome.write()
        elif not records_of(self._chosen):
            names = ", ".join(setting.name for setting in self._chosen)
            expected = f"expected the folder of a grid that was run; it has no records of {names}"
            raise BadInput(f"--output-dir: {self._output}, {expected}")
        write_report(self._grid, self._settings, self._output)

    def print_details(self) -> None:
        """Print what l2t-compare and l2t-inspect say of a run, and where its files are."""
        for experiment in self._there:
            for step in experiment.steps():
                if step.name.startswith((experiment.step_name("compare", ""), experiment.step_name("inspect", ""))):
                    print(f"\n{step.name}:\n", (step.output or step.log).read_text(encoding="utf-8"), sep="\n")
            print(f"teachers, checkpoints, hypotheses, plots and logs: {experiment.setting.folder}", flush=True)

    def _print_earlier_teachers(self) -> None:
        found = [path for experiment in self._there for path in earlier_teachers(experiment)]
        if not found:
            folder = self._options.teachers
            raise BadInput(
                f"--teachers: {folder}, expected the folder of a run of this grid, with SETTING/teachers in it"
            )
        print("teachers that are not trained again:", *found, sep="\n  ", flush=True)

    def _has_corpus(self, setting: Setting) -> bool:
        raw = setting.corpus.raw
        if raw is None or (self._raw / raw).is_dir():
            return True
        if self._options.settings:
            folder = self._raw / raw
            raise BadInput(f"--settings: {setting.name}, expected its corpus in --raw-dir; no folder {folder}")
        print(f"{setting.name}: left out, no folder {self._raw / raw}", flush=True)
        return False

    def _prepare_corpus(self, setting: Setting) -> None:
        corpus = setting.corpus
        text = setting.folder / "raw" if corpus.raw is None else self._raw / corpus.raw
        if corpus.embedded is not None:
            write_corpus(text, CorpusSettings(**corpus.embedded.model_dump()))
        settings = PrepareSettings(
            corpus.vocabulary, noise=setting.noise, train_limit=corpus.train_limit, part=corpus.part
        )
        try:
            prepare(text, setting.folder / "data", settings, replace=False)
        except BadOption as error:
            key = "noise" if error.option == "noise" else f"corpora.{corpus.name}.{error.option}"
            raise BadInput(f"{self._options.grid}: {key}: {error.reason}") from None
