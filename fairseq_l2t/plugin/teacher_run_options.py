"""The options of ``l2t-train-teacher``, parsed and checked before any data is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairseq_l2t.plugin.student.saved_life import FairseqStudentValues
from fairseq_l2t.plugin.student_options import StudentOptions, parse_student_options
from fairseq_l2t.teaching.options.comparison import fixed_options
from fairseq_l2t.teaching.options.config_file import file_values
from fairseq_l2t.teaching.options.declaration import declared
from fairseq_l2t.teaching.options.presets import DEFAULT_PRESET
from fairseq_l2t.teaching.options.translation_options import TranslationOptions
from fairseq_l2t.teaching.plan import TeachingPlan
from fairseq_l2t.teaching.run import RunSetup

__all__ = ["TeacherRunOptions"]

_MAY_CHANGE = frozenset(
    {
        "azureml_logging",
        "data",
        "log_file",
        "log_format",
        "log_interval",
        "max_update",
        "no_progress_bar",
        "save_dir",
        "tensorboard_logdir",
        "wandb_project",
    }
)
"""fairseq's options that may change on ``--resume``, because they do not change the result of an update."""

_OF_THE_WHOLE_LENGTH = ("cosine", "tri_stage")
"""Schedules whose rates depend on ``--max-update``."""


@dataclass(frozen=True)
class TeacherRunOptions:
    """The checked options of a run.

    Args:
        student: options of the student and of teaching.
        arguments: the command line.
    """

    student: StudentOptions
    arguments: tuple[str, ...]

    @classmethod
    def parse(cls, arguments: Sequence[str]) -> TeacherRunOptions:
        """Parse and check a command line, before any data is read.

        Raises:
            OptionError: names the option, its value and the values allowed.
        """
        # Teacher files record the command that made them, without what only an interruption adds.
        kept = tuple(argument for argument in arguments if argument not in ("--resume", "--resume-or-start"))
        return cls(parse_student_options(arguments, DEFAULT_PRESET), kept)

    @property
    def own(self) -> TranslationOptions:
        """Our options, resolved."""
        return self.student.own

    @property
    def plan(self) -> TeachingPlan:
        """The numbers of teaching."""
        return self.student.plan

    @property
    def setup(self) -> RunSetup:
        """The settings of the run."""
        return RunSetup(
            folder=Path(self.student.namespace.save_dir),
            plan=self.plan,
            resume=self.own.resume,
            fixed=self.fixed(),
            config=self.file_values(),
            given=self.student.given | frozenset(self.student.of_fairseq),
            preset=self.own.preset,
            resume_or_start=self.own.resume_or_start,
            student_values=FairseqStudentValues,
        )

    def fixed(self) -> dict[str, Any]:
        """Return the options a resumed run must share with the one it resumes."""
        ours = declared(TranslationOptions)
        of_fairseq = {
            name: str(value)
            for name, value in vars(self.student.namespace).items()
            if name not in _MAY_CHANGE and name not in ours
        }
        if self.student.cfg.lr_scheduler._name in _OF_THE_WHOLE_LENGTH:
            of_fairseq["max_update"] = str(self.student.namespace.max_update)
        return {**of_fairseq, **fixed_options(self.own)}

    def file_values(self) -> dict[str, Any]:
        """Return the options in the form that ``--config`` reads: ours, resolved, and the given ones of fairseq."""
        of_fairseq = {name.replace("_", "-"): value for name, value in self.student.of_fairseq.items()}
        return {**of_fairseq, **file_values(self.own)}
