"""The fairseq part of a run of ``l2t-train-teacher``: the student, its measure on dev, the progress display."""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fairseq.data.iterators import CountingIterator
from fairseq.logging import progress_bar
from torch import Tensor

from fairseq_l2t.loss.teacher import Teacher
from fairseq_l2t.plugin.doctor.doctor import quick_check
from fairseq_l2t.plugin.option_effects import without_effect
from fairseq_l2t.plugin.student.fairseq_student import FairseqStudent
from fairseq_l2t.plugin.student.fingerprints import MAY_DIFFER, input_fingerprints
from fairseq_l2t.plugin.task import vocabulary_of
from fairseq_l2t.plugin.teacher_run_options import TeacherRunOptions
from fairseq_l2t.storage import TeacherSettings
from fairseq_l2t.teaching.options.comparison import refuse_other_inputs
from fairseq_l2t.teaching.plan import TeachingPlan
from fairseq_l2t.teaching.progress_display import StepDisplay, step_display
from fairseq_l2t.teaching.record import SavedState
from fairseq_l2t.teaching.run import run_teaching
from fairseq_l2t.teaching.update_report import UpdateReport
from fairseq_l2t.teaching.work import RunWork

__all__ = ["TranslationObjective", "TranslationStudents", "train_teacher"]

logger = logging.getLogger(__name__)


def train_teacher(arguments: Sequence[str]) -> None:
    """Check the options, and make the remaining teacher updates in ``--save-dir``.

    Raises:
        OptionError: names the option, its value and the values allowed.
        DoctorError: the quick form of ``l2t-doctor`` failed.
        ResumeError: the run in the folder was started with other dictionaries, or with other data and
            ``--allow-other-data`` is not given.
        Others: see `teaching.run.run_teaching`.
    """
    options = TeacherRunOptions.parse(arguments)
    idle = without_effect(options.student.of_fairseq)
    if idle:
        logger.info("options of fairseq that change nothing in teacher training: %s", " ".join(idle))

    def build(saved: SavedState | None) -> tuple[TranslationStudents, TranslationObjective]:
        student = FairseqStudent(options.student)
        students = TranslationStudents(options, student)
        if saved is not None:
            refuse_other_inputs(
                saved[1].get("fingerprints"),
                students.fingerprints,
                option="--allow-other-data",
                is_given=options.own.allow_other_data,
                may_differ=MAY_DIFFER,
            )
        if options.own.skip_quick_check:
            logger.warning("--skip-quick-check: this student's hypergradients were not verified")
        else:
            for check in quick_check(student):
                logger.info("quick check: %s", check)
        return students, TranslationObjective(options, student)

    run_teaching(options.setup, build, lambda done: _progress(options, done))


class TranslationStudents:
    """fairseq models as students of a run; see `teaching.run.StudentAdapter`.

    Args:
        options: of the run.
        student: built.
    """

    def __init__(self, options: TeacherRunOptions, student: FairseqStudent) -> None:
        self._options, self.student = options, student
        self.vocabulary = vocabulary_of(student.task.target_dictionary)
        self.fingerprints = input_fingerprints(student.task, options.student.cfg, options.student.namespace)

    def new_teacher(self, plan: TeachingPlan) -> Teacher:
        """Return the initial teacher."""
        return Teacher.for_student(
            self.student,
            keys=plan.teacher_keys,
            seed=plan.seed,
            initial_coefficient=plan.initial_coefficient,
            stage_spread=plan.stage_spread,
            form=self._options.own.coefficient_form,
            initial_off_diagonal=plan.initial_off_diagonal,
        )

    def observe_dev(self) -> None:
        """Update the dev measures of the student's state."""
        self.student.observe_dev(self.student.dev.teaching)

    def settings(self, extra: dict[str, Any]) -> TeacherSettings:
        """Return the settings of the teacher file."""
        own, plan, shape = self._options.own, self._options.plan, self._options.student.loss_shape
        drawn = {"estimator": own.estimator, "samples": own.samples, "bleu_tokenizer": own.bleu_tokenizer}
        drawn = drawn if own.objective == "expected-bleu" else {}
        recorded = {"objective": own.objective, **drawn, **extra, "arguments": list(self._options.arguments)}
        return TeacherSettings(
            shape.scale, shape.cross_entropy_mix, plan.total_updates, plan.cross_entropy_updates, recorded, shape.level
        )


class TranslationObjective:
    """The measure on dev pairs; see `teaching.run.Objective`.

    Args:
        options: of the run.
        student: built.
    """

    def __init__(self, options: TeacherRunOptions, student: FairseqStudent) -> None:
        self._own, self._seed, self._student = options.own, options.plan.seed, student
        if self._own.objective == "expected-bleu":
            logger.info("reward: %s, estimator %s", student.reward().signature(), self._own.estimator)

    def measure(self, teacher_update: int) -> tuple[float, Tensor]:
        """Return the measure and its gradient (n,), on the pairs of a teacher update."""
        pairs = self._student.dev.teaching
        count = len(pairs) if self._own.dev_batch is None else min(len(pairs), self._own.dev_batch)
        # A new draw of pairs for each update, from numbers alone: a resumed run draws the same.
        chosen = random.Random(f"{self._seed} {teacher_update}").sample(pairs, count)
        value, gradient = self._on(chosen, teacher_update)
        if value == 0 and self._own.objective == "expected-bleu":
            logger.warning(
                "teacher update %d: the sentence BLEU of all hypotheses is 0 (--bleu-tokenizer %s), so the "
                "hypergradient is 0; check the tokenizer and --eval-bleu-detok, or give students a longer life "
                "(--total-updates)",
                teacher_update + 1,
                self._own.bleu_tokenizer,
            )
        return value, gradient

    def holdout(self, teacher_update: int) -> float:
        """Return the measure on the held-back pairs."""
        return self._on(self._student.dev.holdout, teacher_update)[0]

    def largest(self) -> object:
        """Compute the measure on the longest pairs; hypotheses of a new student are long as well."""
        dev = self._student.dev
        tokens = {pair: dev.source_length(pair) + len(dev.target(pair)) for pair in dev.teaching}
        return self._on(sorted(tokens, key=tokens.__getitem__)[-(self._own.dev_batch or len(tokens)) :])

    def _on(self, pairs: Sequence[int], draw: int = 0) -> tuple[float, Tensor]:
        own = self._own
        return self._student.dev_objective(
            own.objective,
            pairs=pairs,
            samples=own.samples,
            estimator=own.estimator,
            alpha=own.risk_alpha,
            seed=self._seed * 1_000_003 + draw,
        )


class _FairseqProgress:
    """fairseq's log of teacher updates, and a display of the student updates within them."""

    def __init__(self, bar: Any, steps: StepDisplay) -> None:
        self._bar, self._steps, self._display = bar, iter(bar), steps
        next(self._steps, None)

    def step(self, work: RunWork) -> None:
        """Show one student update, or one step back."""
        self._display.show(work.share, work.place, work.seconds_left)

    def show(self, report: UpdateReport, seconds: float, left: float) -> None:
        """Show one update."""
        self._bar.log(_statistics(report, seconds, left), tag="teacher", step=report.teacher_update)
        next(self._steps, None)


@contextmanager
def _progress(options: TeacherRunOptions, done: int) -> Iterator[_FairseqProgress]:
    common, total = options.student.cfg.common, options.plan.teacher_updates
    wants_bar = common.log_format == "tqdm" or (common.log_format is None and not common.no_progress_bar)
    updates = progress_bar.progress_bar(
        CountingIterator(range(done, total), start=done, total=total),
        # The bar is that of the student updates; teacher updates are lines above it.
        log_format="simple" if wants_bar else common.log_format,
        log_interval=1,
        log_file=common.log_file,
        aim_repo=common.aim_repo,
        aim_run_hash=common.aim_run_hash,
        aim_param_checkpoint_dir=options.student.namespace.save_dir,
        prefix="teacher",
        tensorboard_logdir=common.tensorboard_logdir,
        wandb_project=common.wandb_project,
        wandb_run_name=os.environ.get("WANDB_NAME", Path(options.student.namespace.save_dir).name),
        azureml_logging=common.azureml_logging,
        default_log_format="simple",
    )
    with step_display(bar=wants_bar, lines=common.log_format != "none") as steps:
        yield _FairseqProgress(updates, steps)


def _statistics(report: UpdateReport, seconds: float, left: float) -> dict[str, Any]:
    chosen = ("progress", "measure", "holdout_measure", "hypergradient_norm", "adjoint_norm", "hypergradient_error")
    values = {name: getattr(report, name) for name in (*chosen, "phi_min", "phi_mean", "phi_max", "phi_off_diagonal")}
    values["recomputed_updates"] = report.recomputed_updates or None
    shown = {name: float(f"{value:.4g}") for name, value in values.items() if value is not None}
    return {**shown, "seconds": round(seconds, 2), "eta_seconds": round(left)}
