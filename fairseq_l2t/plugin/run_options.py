"""The options of ``l2t-train-teacher``, parsed and checked before any data is read."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fairseq_l2t.loss.teacher import DEFAULT_KEYS
from fairseq_l2t.objectives import ESTIMATORS
from fairseq_l2t.plugin.presets import PRESETS, Preset, preset_of
from fairseq_l2t.plugin.student.dev_measures import OBJECTIVES
from fairseq_l2t.plugin.student_options import OptionError, StudentOptions, parse_student_options
from fairseq_l2t.teaching.plan import TeachingPlan
from fairseq_l2t.unroll.adjoint_sweep import PRODUCTS
from fairseq_l2t.unroll.memory.budget import bytes_of
from fairseq_l2t.unroll.memory.stores import PLACES

__all__ = ["RunOptions"]

_MAY_CHANGE = frozenset(
    ("resume", "preset", "teacher_updates", "save_dir", "tensorboard_logdir", "log_format", "log_interval", "log_file")
    + ("no_progress_bar", "wandb_project", "azureml_logging", "data", "max_bad_steps", "max_update", "skip_quick_check")
    + ("keep_steps_in",)
)
"""Options a resumed run may be given anew: none changes what an update computes. Of a preset its values count."""


@dataclass(frozen=True)
class RunOptions:
    """The checked options of a run."""

    student: StudentOptions
    plan: TeachingPlan
    folder: Path
    keys: int
    objective: str
    estimator: str
    samples: int
    alpha: float
    memory_budget: int | None
    resume: bool
    arguments: tuple[str, ...]
    dev_interval: int = 0

    @classmethod
    def parse(cls, arguments: Sequence[str]) -> RunOptions:
        """Parse and check a command line, before any data is read.

        Raises:
            OptionError: names the option, its value and what is allowed.
        """
        preset = preset_of(arguments)
        student = parse_student_options(arguments, partial(_add_trainer_options, preset), preset.settle)
        given = student.namespace
        if given.teacher_keys < 1:
            raise OptionError(f"--teacher-keys: {given.teacher_keys}; expected at least 1")
        if not (given.stage_spread >= 0 and math.isfinite(given.stage_spread)):
            raise OptionError(f"--stage-spread: {given.stage_spread}; expected a finite number of at least 0")
        _check_off_diagonal(given)
        if given.samples < 2:
            raise OptionError(f"--samples: {given.samples}; expected at least 2 (the baseline is the other samples)")
        if not (given.risk_alpha > 0 and math.isfinite(given.risk_alpha)):
            raise OptionError(f"--risk-alpha: {given.risk_alpha}; expected a finite number above 0")
        budget = None if given.memory_budget is None else bytes_of(given.memory_budget)
        if given.keep_graphs and budget is None:
            raise OptionError("--keep-graphs: needs --memory-budget, which says how much memory graphs may take")
        if given.keep_graphs and given.keep_steps_in != "device":
            raise OptionError(f"--keep-graphs: graphs stay on the device; --keep-steps-in is {given.keep_steps_in}")
        life = student.total_updates, student.cross_entropy_updates
        window = preset.window(given.unroll_length, *life)
        plan = TeachingPlan(
            unroll_length=window,
            total_updates=student.total_updates,
            teacher_updates=preset.updates(given.teacher_updates, *life, max(1, window)),
            teacher_lr=given.teacher_lr,
            teacher_word_lr=given.teacher_lr / 10 if given.teacher_word_lr is None else given.teacher_word_lr,
            teacher_clip_norm=given.teacher_clip_norm,
            teacher_lr_shrink=given.teacher_lr_shrink,
            teacher_off_diagonal_lr=given.teacher_off_diagonal_lr,
            max_bad_steps=given.max_bad_steps,
            seed=given.seed,
            backward_length=given.backward_length,
            holdout_lives=given.holdout_lives,
        )
        return cls(
            student,
            plan,
            Path(given.save_dir),
            given.teacher_keys,
            given.objective,
            given.estimator,
            given.samples,
            given.risk_alpha,
            budget,
            given.resume,
            # Teacher files record the command that made them: without what an interruption adds to it.
            tuple(argument for argument in arguments if argument != "--resume"),
            preset.dev_interval(student.cfg.dataset.validate_interval_updates, student.total_updates),
        )

    def left_to_preset(self) -> set[str]:
        """Return the names, among those of `fixed`, of options that are not given."""
        given = {argument.partition("=")[0].removeprefix("--").replace("-", "_") for argument in self.arguments}
        return PRESETS[self.student.namespace.preset].names - given

    def fixed(self) -> dict[str, str]:
        """Return the options a resumed run must share with the one it resumes."""
        given = vars(self.student.namespace)
        # Which graphs are kept, and so the rounding of some updates, depends on the budget; nothing else does.
        may_change = _MAY_CHANGE if given["keep_graphs"] else _MAY_CHANGE | {"memory_budget"}
        # As they are carried out: not given, they depend on the preset. A single key has no others to be spread from.
        settled = {
            **given,
            "unroll_length": self.plan.unroll_length,
            "validate_interval_updates": self.dev_interval,
            "stage_spread": given["stage_spread"] if self.keys > 1 else 0.0,
        }
        return {key: str(value) for key, value in settled.items() if key not in may_change}


def _check_off_diagonal(given: argparse.Namespace) -> None:
    if given.teacher_off_diagonal_lr and given.coefficient_form != "smoothed":
        raise OptionError(
            f"--teacher-off-diagonal-lr: {given.teacher_off_diagonal_lr}; needs --coefficient-form smoothed, a "
            "diagonal Phi has nothing there"
        )


def _add_trainer_options(preset: Preset, parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("teacher training")
    group.add_argument(
        "--preset",
        choices=tuple(PRESETS),
        default=next(iter(PRESETS)),
        help="what options that are not given are: whole-life, what helped with noise (RESULTS.md), or paper, the "
        "published loss in short windows (default: %(default)s; other defaults here are those of the preset)",
    )
    group.add_argument(
        "--unroll-length",
        type=int,
        metavar="T",
        help="student updates between two teacher updates (default: whole-life, all after the cross-entropy; paper, "
        f"{PRESETS['paper'].unroll_length})",
    )
    group.add_argument(
        "--backward-length",
        type=int,
        default=0,
        metavar="K",
        help="go back through the last K updates of a window alone: cheaper, less noisy, biased (default: 0, all)",
    )
    group.add_argument(
        "--teacher-updates",
        type=int,
        metavar="K",
        help=f"teacher updates in all (default: whole-life, those of {PRESETS['whole-life'].lives} lives; paper, "
        f"{PRESETS['paper'].teacher_updates}); 0: the teacher as it begins, which is a fixed loss",
    )
    group.add_argument(
        "--holdout-lives",
        type=int,
        metavar="N",
        help="lives that judge the teacher on held-back dev pairs, before its first update and after each life it was "
        "taught by; their seeds are the same for all teachers, and no hypergradient is computed; 0: judged by the life "
        "that taught it, whose seed tells more than the teacher (default: %(default)s)",
    )
    group.add_argument(
        "--teacher-lr",
        type=float,
        metavar="LR",
        help="learning rate of what all words share (default: %(default)s)",
    )
    group.add_argument(
        "--teacher-word-lr",
        type=float,
        metavar="LR",
        help="learning rate of each word's own part; 0: one coefficient for all words (default: a tenth of "
        "--teacher-lr)",
    )
    group.add_argument(
        "--teacher-off-diagonal-lr",
        type=float,
        metavar="LR",
        help="learning rate of the coefficient of the mean log-probability, of --coefficient-form smoothed (default: "
        "whole-life 0.005, paper a tenth of --teacher-lr)",
    )
    group.add_argument(
        "--teacher-lr-shrink",
        type=float,
        metavar="FACTOR",
        help="where --holdout-lives find the teacher worse than the best one, go back to that and multiply all its "
        "learning rates by this; 1: go on from where it is (default: whole-life 0.5, paper and without "
        "--holdout-lives 1)",
    )
    group.add_argument(
        "--teacher-clip-norm",
        type=float,
        metavar="NORM",
        help="bound on the norm of the hypergradient; 0: none (default: %(default)s)",
    )
    group.add_argument(
        "--teacher-keys", type=int, default=DEFAULT_KEYS, metavar="N", help="keys of the teacher (default: %(default)s)"
    )
    group.add_argument(
        "--stage-spread",
        type=float,
        metavar="D",
        help="how far the keys are spread over the stages of a life at the start: 0, all share all of it; at 4 or so, "
        "the first key has its beginning and the last its end (default: %(default)s)",
    )
    group.add_argument(
        "--objective",
        choices=OBJECTIVES,
        help="measure on dev: likelihood, expected token accuracy; inverse-perplexity, geometric mean probability of "
        "the reference; calibrated-perplexity, the same at the student's best temperature; expected-bleu, expected "
        "sentence BLEU of drawn hypotheses (default: %(default)s)",
    )
    group.add_argument("--estimator", choices=tuple(ESTIMATORS), default="reinforce", help="estimator of expected-bleu")
    group.add_argument(
        "--samples",
        type=int,
        default=16,
        metavar="S",
        help="hypotheses drawn for each dev sentence (default: %(default)s)",
    )
    group.add_argument(
        "--risk-alpha",
        type=float,
        default=1.0,
        metavar="A",
        help="sharpness of the risk estimator (default: %(default)s)",
    )
    group.add_argument(
        "--max-bad-steps",
        type=int,
        default=3,
        metavar="N",
        help="windows in a row that may end in NaN or infinity (default: %(default)s)",
    )
    group.add_argument(
        "--memory-budget",
        metavar="SIZE",
        help="memory for all that is kept of a window, such as 512M or 2G: every gradient while they fit, else a few "
        "states, from which updates are made again (default: half of the memory of the device)",
    )
    group.add_argument(
        "--keep-steps-in",
        choices=PLACES,
        default="device",
        help="where a window waits for the sweep back: beside the model, in host memory, or in a file in --save-dir",
    )
    group.add_argument(
        "--keep-graphs",
        action="store_true",
        help="spend what is left of --memory-budget on the graphs of the last updates: faster, other rounding",
    )
    group.add_argument(
        "--hvp",
        choices=PRODUCTS,
        default="exact",
        help="second derivatives: exact, or from the difference of two gradients: faster, and an approximation whose "
        "error is told for the first window (default: %(default)s)",
    )
    group.add_argument(
        "--skip-quick-check",
        action="store_true",
        help="start without the quick form of l2t-doctor, which refuses students whose hypergradients are not right",
    )
    group.add_argument("--resume", action="store_true", help="continue the run in --save-dir")
    parser.set_defaults(**preset.options)
