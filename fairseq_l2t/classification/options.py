"""The options of ``l2t-classify``, made into what they stand for."""

from __future__ import annotations

import argparse
import math
from argparse import Namespace
from pathlib import Path
from typing import Any

from fairseq_l2t.classification.data import DATA_NAMES, Splits, load_data
from fairseq_l2t.classification.losses import CRITERIA, Criterion, build_criterion
from fairseq_l2t.classification.recipe import LR_SCHEDULERS, OPTIMIZERS, Recipe
from fairseq_l2t.classification.teaching import DEFAULT_KEYS, OBJECTIVES
from fairseq_l2t.loss.dynamic_loss import LossShape
from fairseq_l2t.teaching.plan import TeachingPlan

__all__ = [
    "LOSSES",
    "add_data_options",
    "add_recipe_options",
    "add_run_options",
    "add_student_options",
    "add_teacher_options",
    "criterion_of",
    "data_of",
    "data_options_of",
    "loss_shape_of",
    "plan_of",
    "recipe_of",
]

LOSSES = (*CRITERIA, "teacher")
"""What ``--loss`` takes; ``teacher`` needs ``--teacher-path``."""

_DATA = ("data", "data_dir", "train_limit", "dev_size", "label_noise", "label_noise_seed", "dev_holdout", "split_seed")


def _seed(text: str) -> int:
    """Return a seed that torch takes."""
    if not text.isdecimal() or int(text) >= 2**63:
        raise argparse.ArgumentTypeError(f"{text!r}; expected a whole number, 0 to 2^63 - 1")
    return int(text)


def add_data_options(parser: argparse.ArgumentParser) -> None:
    """Add what says which images there are."""
    add = parser.add_argument_group("data").add_argument
    add("--data", choices=DATA_NAMES, default="digits", help="default: %(default)s, scikit-learn's scans")
    add("--data-dir", metavar="DIR", help="folder with the files of mnist, cifar10 or cifar100")
    add("--train-limit", type=int, metavar="N", help="the first N training images alone")
    add("--dev-size", type=int, metavar="N", help="images taken from the training set as dev set")
    add("--label-noise", type=float, default=0.0, metavar="SHARE", help="of training labels, replaced by others (0)")
    add("--label-noise-seed", type=_seed, default=1, metavar="N", help="which labels (default %(default)s)")
    add(
        "--split-seed",
        type=_seed,
        default=0,
        metavar="N",
        help="which images are dev, and which test where there are no official ones (default %(default)s)",
    )
    add(
        "--dev-holdout",
        type=float,
        default=0.5,
        metavar="SHARE",
        help="share of dev that neither trains a teacher nor is shown to it (default %(default)s)",
    )


def add_recipe_options(parser: argparse.ArgumentParser) -> None:
    """Add what says how a student is trained."""
    add = parser.add_argument_group("student").add_argument
    add(
        "--student",
        default="mlp",
        metavar="NAME",
        help="mlp, mlp-H1-H2.., lenet, resnet-D, wide-resnet-D-W or densenet-bc-D-G (default mlp)",
    )
    add("--total-updates", type=int, default=600, metavar="N", help="of a life (default %(default)s)")
    add("--batch-size", type=int, default=64, metavar="N", help="images (default %(default)s)")
    add("--optimizer", choices=OPTIMIZERS, default="sgd", help="default: %(default)s, with momentum")
    add("--lr", type=float, default=0.1, help="default: %(default)s")
    add("--lr-scheduler", choices=LR_SCHEDULERS, default="fixed", help="default: %(default)s")
    add("--momentum", type=float, default=0.9, help="default: %(default)s")
    add("--weight-decay", type=float, default=0.0, help="default: 0")
    add("--augment", action="store_true", help="pad by 4 and crop at random, mirror half of the images")
    add("--cross-entropy-updates", type=int, default=0, metavar="N", help="at the start of a taught life (default 0)")
    add(
        "--validate-interval-updates",
        type=int,
        default=50,
        metavar="N",
        help="updates between two looks at dev (default %(default)s)",
    )


def add_student_options(parser: argparse.ArgumentParser) -> None:
    """Add what says under which loss one student is trained."""
    group = parser.add_argument_group("loss")
    group.add_argument("--loss", choices=LOSSES, default="cross-entropy", help="default: %(default)s")
    group.add_argument("--teacher-path", metavar="FILE", help="teacher.safetensors, for --loss teacher")
    group.add_argument("--label-smoothing", type=float, default=0.1, metavar="EPSILON", help="default: %(default)s")
    group.add_argument("--smooth-k", type=float, default=50.0, metavar="K", help="of smooth-zero-one (default 50)")
    group.add_argument("--margin", type=int, default=2, choices=(1, 2, 3, 4), help="of large-margin (default 2)")
    group.add_argument(
        "--lambda-min",
        type=float,
        default=0.001,
        metavar="LAMBDA",
        help="of large-margin, reached after half of the updates (default %(default)s)",
    )
    group.add_argument(
        "--patience",
        type=int,
        default=0,
        metavar="N",
        help="validations without a new best that end the training; 0: never (default)",
    )


def add_teacher_options(parser: argparse.ArgumentParser) -> None:
    """Add what says how a teacher is trained."""
    group = parser.add_argument_group("teacher")
    add = group.add_argument
    add("--teacher-updates", type=int, default=12, metavar="N", help="default: %(default)s")
    add("--unroll-length", type=int, metavar="T", help="student updates of a window (default: a whole life)")
    add("--backward-length", type=int, default=0, metavar="N", help="the last N of a window alone; 0: all (default)")
    add("--objective", choices=tuple(OBJECTIVES), default="calibrated-perplexity", help="default: %(default)s")
    add("--dev-batch", type=int, metavar="N", help="dev images a measure is taken on (default: all that teach)")
    add("--teacher-lr", type=float, default=0.03, help="of Adam, for what the diagonal shares and V (%(default)s)")
    add("--teacher-word-lr", type=float, default=0.0, help="the same for each coefficient's own part (%(default)s)")
    add(
        "--teacher-off-diagonal-lr",
        type=float,
        default=0.005,
        help="the same for what all off-diagonal coefficients share (%(default)s)",
    )
    add(
        "--teacher-lr-shrink",
        type=float,
        metavar="FACTOR",
        help="where --holdout-lives find the teacher worse than the best, it goes back, with smaller rates; 1: it goes "
        "on from where it is (default 0.5, without --holdout-lives 1)",
    )
    add("--teacher-clip-norm", type=float, default=1.0, metavar="NORM", help="of the hypergradient; 0: none (1)")
    add("--teacher-keys", type=int, default=DEFAULT_KEYS, metavar="N", help="default: %(default)s")
    add("--stage-spread", type=float, default=4.0, help="of the keys over the stages of a life (default %(default)s)")
    add("--initial-coefficient", type=float, default=1.0, help="of the diagonal (default %(default)s)")
    add(
        "--initial-off-diagonal",
        type=float,
        default=0.0,
        metavar="PSI",
        help="where the coefficients beside the diagonal start (default %(default)s)",
    )
    add("--loss-scale", type=float, help="default: 4 / --initial-coefficient")
    add("--cross-entropy-mix", type=float, default=0.0, metavar="SHARE", help="default: 0")
    add("--holdout-lives", type=int, default=3, metavar="N", help="that judge each teacher (default 3)")
    add("--memory-budget", metavar="SIZE", help="for what is kept of a window, such as 512M (default: half of memory)")
    add("--max-bad-steps", type=int, default=3, metavar="N", help="windows in a row that may end in NaN (default 3)")


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Add what says where a run writes."""
    group = parser.add_argument_group("run")
    group.add_argument("--seed", type=_seed, default=1, help="default: %(default)s")
    group.add_argument("--save-dir", required=True, metavar="DIR", help="for the files of this run")
    group.add_argument("--resume", action="store_true", help="go on with the run that --save-dir holds")
    group.add_argument("--no-progress-bar", action="store_true", help="log lines instead")
    group.add_argument("--tensorboard-logdir", metavar="DIR", help="needs pip install 'fairseq_l2t[inspection]'")


def data_of(options: Namespace | dict[str, Any]) -> Splits:
    """Return the images that options, or those a checkpoint tells of, name.

    Raises:
        DataError, ValueError: names file or option.
    """
    given = dict(options) if isinstance(options, dict) else vars(options)
    folder = given["data_dir"]
    # Checkpoints from before there was a choice are of division 0.
    return load_data(
        given["data"],
        None if folder is None else Path(folder),
        seed=given["label_noise_seed"],
        label_noise=given["label_noise"],
        dev_size=given["dev_size"],
        train_limit=given["train_limit"],
        split_seed=given.get("split_seed", 0),
    )


def data_options_of(options: Namespace) -> dict[str, Any]:
    """Return the options that `data_of` needs, JSON-able."""
    return {name: getattr(options, name) for name in _DATA}


def recipe_of(options: Namespace) -> Recipe:
    """Return the recipe; raises ValueError as it does."""
    names = ("student", "total_updates", "batch_size", "optimizer", "lr", "lr_scheduler", "momentum", "weight_decay")
    names += ("augment", "cross_entropy_updates")
    return Recipe(**{name: getattr(options, name) for name in names})


def criterion_of(options: Namespace) -> Criterion | None:
    """Return the loss of a student that no teacher teaches; None for ``--loss teacher``.

    Raises:
        ValueError: names option, value and range.
    """
    if options.loss == "teacher":
        if options.teacher_path is None:
            raise ValueError("--loss teacher: needs --teacher-path FILE")
        return None
    if options.teacher_path is not None:
        raise ValueError(f"--teacher-path: needs --loss teacher; --loss is {options.loss}")
    own = {
        "label-smoothing": {"epsilon": options.label_smoothing},
        "smooth-zero-one": {"k": options.smooth_k},
        "large-margin": {
            "margin": options.margin,
            "anneal_updates": max(1, options.total_updates // 2),
            "lambda_end": options.lambda_min,
        },
    }
    return build_criterion(options.loss, **own.get(options.loss, {}))


def loss_shape_of(options: Namespace) -> LossShape:
    """Return the scale and share of cross-entropy; raises ValueError as it does."""
    if not 0 < options.initial_coefficient < math.inf:
        raise ValueError(f"--initial-coefficient: {options.initial_coefficient}; expected a finite number above 0")
    scale = 4 / options.initial_coefficient if options.loss_scale is None else options.loss_scale
    return LossShape(scale, options.cross_entropy_mix)


def plan_of(options: Namespace) -> TeachingPlan:
    """Return the plan of a teacher training; raises ValueError as it does."""
    names = ("total_updates", "teacher_updates", "teacher_lr", "teacher_word_lr", "teacher_clip_norm", "max_bad_steps")
    names += ("seed", "backward_length", "holdout_lives", "teacher_off_diagonal_lr")
    if options.teacher_keys < 1:
        raise ValueError(f"--teacher-keys: {options.teacher_keys}; expected at least 1")
    shrink = options.teacher_lr_shrink
    if shrink is None:
        shrink = 0.5 if options.holdout_lives else 1.0
    length = options.unroll_length
    if length is None:
        length = max(1, options.total_updates - options.cross_entropy_updates)
    numbers = {name: getattr(options, name) for name in names}
    return TeachingPlan(unroll_length=length, teacher_lr_shrink=shrink, **numbers)
