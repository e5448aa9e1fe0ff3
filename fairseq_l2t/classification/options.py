"""The options of ``l2t-classify``, and their conversion to data, recipe, loss and plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass as plain_dataclass
from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from fairseq_l2t.classification.data import Splits, load_data
from fairseq_l2t.classification.losses import Criterion, build_criterion
from fairseq_l2t.classification.recipe import Recipe, RecipeOptions
from fairseq_l2t.loss.dynamic_loss import LossShape
from fairseq_l2t.teaching import plan as teaching_plan
from fairseq_l2t.teaching.options.command_line import Command, parse_command
from fairseq_l2t.teaching.options.declaration import Option, OptionError, one_line_errors
from fairseq_l2t.teaching.options.image_options import ImageTeaching
from fairseq_l2t.teaching.options.life_options import DevOptions, LifeOptions, RunOptions
from fairseq_l2t.teaching.options.limits import LARGEST_COEFFICIENT, LARGEST_COUNT
from fairseq_l2t.teaching.options.presets import PRESETS
from fairseq_l2t.teaching.plan import TeachingPlan, life_of, resolve

__all__ = [
    "COMMANDS",
    "DataOptions",
    "EvaluateOptions",
    "ParsedCommand",
    "PlotOptions",
    "TrainOptions",
    "TrainTeacherOptions",
    "criterion_of",
    "data_of",
    "data_options_of",
    "loss_shape_of",
    "parse",
    "plan_of",
    "recipe_of",
]

_DATA, _RUN, _LOSS = "images", "run", "loss of the student"

Seed = Annotated[int, Field(ge=0, le=2**63 - 1)]
"""Seeds that torch takes."""

_SEEDS = "a whole number from 0 to 2^63 - 1"


@one_line_errors
@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """The data set, its division and its label noise."""

    data: Annotated[
        Literal["digits", "mnist", "cifar10", "cifar100"],
        Option("data set; digits are the scans of scikit-learn", _DATA),
    ] = "digits"
    data_dir: Annotated[
        str | None,
        Option(
            "folder with the files of mnist, cifar10 or cifar100",
            _DATA,
            "DIR",
            unset="none",
            expected="a folder",
            may_change=True,
        ),
    ] = None
    train_limit: Annotated[
        int | None,
        Field(ge=1, le=LARGEST_COUNT),
        Option("number of training images, the first ones", _DATA, "N", unset="all"),
    ] = None
    dev_size: Annotated[
        int | None,
        Field(ge=1, le=LARGEST_COUNT),
        Option(
            "images taken from the training set as dev set",
            _DATA,
            "N",
            unset="297 of digits, 1000 of a pool of test images, otherwise 5000",
        ),
    ] = None
    label_noise: Annotated[
        float, Field(ge=0, lt=1), Option("share of the training labels that are replaced by others", _DATA, "SHARE")
    ] = 0.0
    label_noise_seed: Annotated[Seed, Option("seed of the labels that are replaced", _DATA, "N", expected=_SEEDS)] = 1
    split_seed: Annotated[
        Seed,
        Option(
            "seed of the choice of dev images, and of test images where there are no official ones",
            _DATA,
            "N",
            expected=_SEEDS,
        ),
    ] = 0


@one_line_errors
@dataclass(frozen=True, kw_only=True)
class ImageRunOptions(RunOptions):
    """Output, display and seed of a run."""

    save_dir: Annotated[
        str, Option("folder for the files of this run", _RUN, "DIR", expected="a folder", may_change=True)
    ]
    seed: Annotated[Seed, Option("seed of the run; later lives count up from it", _RUN, "N", expected=_SEEDS)] = 1
    no_progress_bar: Annotated[bool, Option("write log lines instead of a progress bar", _RUN, may_change=True)] = False
    tensorboard_logdir: Annotated[
        str | None,
        Option(
            "folder for TensorBoard, which needs pip install 'tensorboard>=2.14'",
            _RUN,
            "DIR",
            unset="none",
            expected="a folder",
            may_change=True,
        ),
    ] = None


@one_line_errors
@dataclass(frozen=True, kw_only=True)
class LossOptions:
    """The loss of one student."""

    loss: Annotated[
        Literal["cross-entropy", "label-smoothing", "smooth-zero-one", "large-margin", "teacher"],
        Option("loss; teacher is that of --teacher-path", _LOSS),
    ] = "cross-entropy"
    teacher_path: Annotated[
        str | None,
        Option("teacher.safetensors, for --loss teacher", _LOSS, "FILE", unset="none", expected="a file"),
    ] = None
    label_smoothing: Annotated[
        float, Field(ge=0, lt=1), Option("smoothing of --loss label-smoothing", _LOSS, "EPSILON")
    ] = 0.1
    smooth_k: Annotated[
        float, Field(gt=0, le=LARGEST_COEFFICIENT), Option("K of --loss smooth-zero-one", _LOSS, "K")
    ] = 50.0
    margin: Annotated[int, Field(ge=1, le=4), Option("margin of --loss large-margin", _LOSS, "M")] = 2
    lambda_min: Annotated[
        float,
        Field(gt=0, le=1000),
        Option("lambda of --loss large-margin after half of the updates", _LOSS, "LAMBDA"),
    ] = 0.001
    patience: Annotated[
        int,
        Field(ge=0, le=LARGEST_COUNT),
        Option("validations without a new best that end the training; 0: never", _LOSS, "N"),
    ] = 0


@one_line_errors
@dataclass(frozen=True, kw_only=True)
class TrainTeacherOptions(ImageTeaching, RecipeOptions, DataOptions, ImageRunOptions):
    """Train a teacher on lives of a student."""


@one_line_errors
@dataclass(frozen=True, kw_only=True)
class TrainOptions(LossOptions, LifeOptions, DevOptions, RecipeOptions, DataOptions, ImageRunOptions):
    """Train a student under any loss."""


@one_line_errors
@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """Print the error rates of checkpoints on test images."""

    checkpoints: Annotated[
        tuple[str, ...],
        Option("checkpoint_best.safetensors of trained students", "files", "CHECKPOINT", is_positional=True),
    ]
    data_dir: Annotated[
        str | None,
        Option("folder with the images now", "files", "DIR", unset="the folder they were in", expected="a folder"),
    ] = None


@one_line_errors
@dataclass(frozen=True, kw_only=True)
class PlotOptions:
    """Draw a teacher's training and its coefficients, as PNG."""

    run: Annotated[str, Option("--save-dir of a train-teacher run", "files", "DIR", is_positional=True)]
    output_dir: Annotated[
        str | None,
        Option("folder for the pictures", "files", "DIR", unset="the folder of the run", expected="a folder"),
    ] = None
    classes: Annotated[
        tuple[str, ...],
        Option("rows of Phi to show", "files", "CLASS", unset="all", expected="names", takes_several=True),
    ] = ()


_IMAGES: Mapping[str, object] = {"images": PRESETS["images"]}

COMMANDS: dict[str, Command] = {
    "train-teacher": Command(TrainTeacherOptions, "train a teacher on lives of a student", _IMAGES),
    "train": Command(TrainOptions, "train a student under any loss", _IMAGES),
    "evaluate": Command(EvaluateOptions, "print the error rates of checkpoints on test images", {}),
    "plot": Command(PlotOptions, "draw a teacher's training and its coefficients, as PNG", {}),
}
"""The commands of ``l2t-classify``, by name."""


@plain_dataclass(frozen=True)
class ParsedCommand:
    """A command line.

    Args:
        name: of the command.
        options: an instance of its class, resolved.
    """

    name: str
    options: Any


def parse(arguments: Sequence[str]) -> ParsedCommand:
    """Parse a command line of ``l2t-classify``.

    Raises:
        OptionError: names the option, its value and the values allowed.
        SystemExit: ``--help`` was asked for.
    """
    description = "Teachers of loss functions for image classifiers, and students under them."
    name, given = parse_command("l2t-classify", description, COMMANDS, arguments)
    options = given.options
    with given.naming_file(arguments):
        if isinstance(options, TrainTeacherOptions):
            options = resolve(options, given.names)
        elif isinstance(options, TrainOptions):
            total, begin = life_of(options)
            options = replace(options, total_updates=total, cross_entropy_updates=begin)
    return ParsedCommand(name, options)


def data_of(options: DataOptions) -> Splits:
    """Return the images that options name.

    Raises:
        DataError, ValueError: names file or option.
    """
    return load_data(
        options.data,
        None if options.data_dir is None else Path(options.data_dir),
        seed=options.label_noise_seed,
        label_noise=options.label_noise,
        dev_size=options.dev_size,
        train_limit=options.train_limit,
        split_seed=options.split_seed,
    )


def data_options_of(options: TrainOptions | TrainTeacherOptions) -> dict[str, Any]:
    """Return the options that `data_of` needs, with the share of dev that is held back, JSON-able."""
    names = [field.name for field in fields(DataOptions)]
    return {name: getattr(options, name) for name in (*names, "dev_holdout")}


def recipe_of(options: TrainOptions | TrainTeacherOptions) -> Recipe:
    """Return the recipe of resolved options."""
    return Recipe(**{field.name: getattr(options, field.name) for field in fields(Recipe)})


def criterion_of(options: TrainOptions) -> Criterion | None:
    """Return the loss of a student that no teacher teaches; None for ``--loss teacher``, with its ``--teacher-path``.

    Raises:
        ValueError: names option, value and range.
    """
    if options.loss == "teacher":
        if options.teacher_path is None:
            raise OptionError("--loss teacher: needs --teacher-path FILE")
        return None
    if options.teacher_path is not None:
        raise OptionError(f"--teacher-path: needs --loss teacher; --loss is {options.loss}")
    own: dict[str, dict[str, float]] = {
        "label-smoothing": {"epsilon": options.label_smoothing},
        "smooth-zero-one": {"k": options.smooth_k},
        "large-margin": {
            "margin": options.margin,
            "anneal_updates": max(1, recipe_of(options).total_updates // 2),
            "lambda_end": options.lambda_min,
        },
    }
    return build_criterion(options.loss, **own.get(options.loss, {}))


def loss_shape_of(options: TrainTeacherOptions) -> LossShape:
    """Return the scale and the share of cross-entropy of resolved options."""
    return plan_of(options).loss_shape()


def plan_of(options: TrainTeacherOptions) -> TeachingPlan:
    """Return the plan of resolved options; raise `OptionError` if values do not fit together."""
    return teaching_plan.plan_of(options, options.seed)
