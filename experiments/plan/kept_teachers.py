"""Checks of teacher files before students are trained by them: those of an earlier run, and those trained here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from experiments.plan.translation import Experiment
from experiments.programs.step import difference
from experiments.records.training_logs import teacher_lines
from fairseq_l2t.inspection import read_dictionary
from fairseq_l2t.pairs.parallel_text import BadInput
from fairseq_l2t.storage import TeacherFileError, load_teacher

__all__ = ["earlier_teachers", "refuse_damaged_teachers", "refuse_other_vocabulary"]


def earlier_teachers(experiment: Experiment) -> Iterator[Path]:
    """Yield the files of the teachers that are taken from an earlier run.

    Raises:
        BadInput: one cannot be read, is not trained to its end, or was trained with other options than the grid's.
    """
    setting = experiment.setting
    for name in filter(setting.has_teacher, experiment.used_teachers):
        path = setting.teacher_file(name)
        try:
            arguments = load_teacher(path).settings.extra.get("arguments", [])
        except TeacherFileError as error:
            raise BadInput(f"--teachers: {error}") from None
        before, now = arguments[1:-2], list(experiment.teacher_words(name))  # without DATA_BIN and --save-dir DIR
        if before != now:
            raise BadInput(
                f"--teachers: {path} was trained with other options than the grid's {name} ({difference(before, now)})"
            )
        trained, wanted = len(teacher_lines(path.parent)), experiment.grid.teachers[name].updates
        if trained != wanted:
            raise BadInput(
                f"--teachers: {path} is not finished, {trained} of {wanted} updates by "
                f"{path.with_name('teacher_log.jsonl')}; let its own run go on, or leave --teachers out"
            )
        yield path


def refuse_damaged_teachers(experiment: Experiment) -> None:
    """Check that the teachers that were trained here are whole, before the students of damaged ones begin anew.

    Raises:
        BadInput: a finished one is missing, or cannot be read.
    """
    for name in experiment.used_teachers:
        step = experiment.train_teacher(name)
        if experiment.setting.has_teacher(name) or not step.is_done():
            continue
        try:
            load_teacher(experiment.setting.teacher_file(name))
        except TeacherFileError as error:
            raise BadInput(
                f"{error}; put the file back as it was, or remove {step.work} and {step.marker} to train it and its "
                "students again"
            ) from None


def refuse_other_vocabulary(experiment: Experiment) -> None:
    """Check that the teachers of an earlier run are for the present dictionary.

    Raises:
        BadInput: one is for another.
    """
    for path in earlier_teachers(experiment):
        try:
            load_teacher(path, vocabulary=read_dictionary(experiment.setting.dictionary).vocabulary)
        except TeacherFileError as error:
            raise BadInput(f"--teachers: {error}") from None
