"""The options of teaching, each said once: name, type, range, help text, group, default.

A field's default is the published one (Wu et al., NeurIPS 2018) and that of every preset (`teaching.options.presets`)
that does not name it. ``None`` stands for a value that depends on other options; `teaching.plan.resolve` computes it.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from fairseq_l2t.teaching.options.declaration import Option, one_line_errors
from fairseq_l2t.unroll.memory.budget import bytes_of

__all__ = [
    "DEFAULT_LIVES",
    "DEFAULT_TOTAL_UPDATES",
    "DevOptions",
    "LifeOptions",
    "RunOptions",
    "TeachingOptions",
]

DEFAULT_TOTAL_UPDATES = 1000
"""Updates of a student's life where neither --total-updates nor --max-update is given."""

DEFAULT_LIVES = 8
"""Lives of a student that teach, where --teacher-updates depends on them."""

_LIFE, _DEV, _RUN = "life of a student", "dev set", "run"
_LOSS, _UPDATES, _STEPS, _MEMORY = "loss and teacher", "teacher updates", "steps of the teacher", "memory and speed"

_FINITE = {"allow_inf_nan": False}


def _size(text: str | None) -> str | None:
    if text is not None:
        bytes_of(text)
    return text


@one_line_errors
@dataclass(frozen=True, kw_only=True)
class LifeOptions:
    """How long a student lives."""

    total_updates: Annotated[
        int | None,
        Field(ge=1),
        Option(
            "length of a student's life in updates",
            _LIFE,
            "H",
            unset=f"--max-update, otherwise {DEFAULT_TOTAL_UPDATES}",
        ),
    ] = None
    cross_entropy_updates: Annotated[
        int | None,
        Field(ge=0),
        Option(
            "updates of plain cross-entropy at the start of each taught life, fewer than --total-updates",
            _LIFE,
            "N",
            unset="--warmup-updates where it is given, otherwise 0",
        ),
    ] = None


@one_line_errors
@dataclass(frozen=True, kw_only=True)
class DevOptions:
    """When a student is measured on dev, and on how much of it."""

    validate_interval_updates: Annotated[
        int | None,
        Field(ge=0),
        Option(
            "student updates between two measures on dev, which the teacher sees as part of the state; 0: between "
            "windows alone",
            _DEV,
            "N",
            unset="a fifth of a life",
        ),
    ] = 0
    dev_holdout: Annotated[
        float,
        Field(ge=0, lt=1),
        Option("share of dev that chooses the teacher instead of training it", _DEV, "SHARE"),
    ] = 0.2


@one_line_errors
@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Where options come from, and whether a run goes on."""

    config: Annotated[
        str | None,
        Option(
            "YAML file that gives any option by its name; the command line overrides it",
            _RUN,
            "FILE",
            unset="none",
            may_change=True,
            expected="a path",
        ),
    ] = None
    resume: Annotated[bool, Option("continue the run in --save-dir", _RUN, may_change=True)] = False


@one_line_errors
@dataclass(frozen=True, kw_only=True)
class TeachingOptions(LifeOptions, DevOptions):
    """The options of teaching that translation and images share."""

    # --- loss and teacher -------------------------------------------------------------------------------------

    initial_coefficient: Annotated[
        float,
        Field(gt=0, **_FINITE),
        Option("coefficient Phi of the label that a new teacher starts from", _LOSS, "PHI"),
    ] = 0.1
    initial_off_diagonal: Annotated[
        float | None,
        Field(**_FINITE),
        Option(
            "coefficient beside the diagonal that a new teacher starts from; label smoothing E would have "
            "PHI * E / (1 - E)",
            _LOSS,
            "PSI",
            unset="0",
        ),
    ] = None
    loss_scale: Annotated[
        float | None,
        Field(gt=0, **_FINITE),
        Option(
            "factor of the sigmoid loss; the default gives it the gradient of cross-entropy where PHI log p is small",
            _LOSS,
            "C",
            unset="4 / PHI",
        ),
    ] = None
    cross_entropy_mix: Annotated[
        float, Field(ge=0, le=1), Option("share of plain cross-entropy in the loss", _LOSS, "ALPHA")
    ] = 0.0
    teacher_keys: Annotated[int, Field(ge=1), Option("number of keys of the teacher", _LOSS, "N")] = 5
    stage_spread: Annotated[
        float,
        Field(ge=0, **_FINITE),
        Option(
            "how far the keys are spread over the stages of a life at the start; 0: all keys share a whole life; at "
            "about 4 the first key has the beginning of a life and the last its end",
            _LOSS,
            "D",
        ),
    ] = 0.0

    # --- teacher updates --------------------------------------------------------------------------------------

    teacher_updates: Annotated[
        int | None,
        Field(ge=0),
        Option(
            "teacher updates in all; 0 writes the teacher as it starts, which is a fixed loss",
            _UPDATES,
            "K",
            unset=f"those of {DEFAULT_LIVES} lives",
            may_change=True,
        ),
    ] = 100
    unroll_length: Annotated[
        int | None,
        Field(ge=1),
        Option(
            "student updates of a window: those between two teacher updates, at most --total-updates",
            _UPDATES,
            "T",
            unset="all updates of a life after its cross-entropy",
        ),
    ] = 20
    backward_length: Annotated[
        int,
        Field(ge=0),
        Option(
            "last updates of a window that the sweep goes back through, at most --unroll-length: cheaper and less "
            "noisy, but biased; 0: all",
            _UPDATES,
            "K",
        ),
    ] = 0
    holdout_lives: Annotated[
        int,
        Field(ge=0),
        Option(
            "lives that judge the teacher on held-back dev examples, before its first update and after each life "
            "that taught it; their seeds are the same for all teachers; 0: the life that taught the teacher judges "
            "it, whose seed matters more than the teacher",
            _UPDATES,
            "N",
        ),
    ] = 0
    dev_batch: Annotated[
        int | None,
        Field(ge=1),
        Option(
            "dev examples of the measure of a teacher update", _UPDATES, "B", unset="all dev examples not held back"
        ),
    ] = 64
    max_bad_steps: Annotated[
        int,
        Field(ge=1),
        Option("windows in a row that may end in NaN or infinity", _UPDATES, "N", may_change=True),
    ] = 3

    # --- steps of the teacher ---------------------------------------------------------------------------------

    teacher_lr: Annotated[
        float,
        Field(gt=0, **_FINITE),
        Option("learning rate of the teacher's Adam, for what the coefficients of all labels share", _STEPS, "LR"),
    ] = 0.01
    teacher_word_lr: Annotated[
        float | None,
        Field(ge=0, **_FINITE),
        Option(
            "learning rate of each label's own part; 0: the same coefficient for all labels",
            _STEPS,
            "LR",
            unset="a tenth of --teacher-lr",
        ),
    ] = None
    teacher_off_diagonal_lr: Annotated[
        float | None,
        Field(ge=0, **_FINITE),
        Option(
            "learning rate of what the coefficients beside the diagonal share",
            _STEPS,
            "LR",
            unset="a tenth of --teacher-lr",
        ),
    ] = None
    teacher_lr_shrink: Annotated[
        float,
        Field(gt=0, le=1),
        Option(
            "where --holdout-lives find the teacher worse than the best one, training returns to the best one and "
            "multiplies all its learning rates by this factor; 1: it goes on from where it is (always without "
            "--holdout-lives)",
            _STEPS,
            "FACTOR",
        ),
    ] = 1.0
    teacher_clip_norm: Annotated[
        float,
        Field(ge=0, **_FINITE),
        Option("bound on the norm of the hypergradient; 0: none", _STEPS, "NORM"),
    ] = 0.0

    teacher_adam_betas: Annotated[
        tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]],
        Option("decay rates of the moments of the teacher's Adam, such as '(0.9, 0.999)'", _STEPS, "B"),
    ] = (0.9, 0.999)

    # --- memory and speed -------------------------------------------------------------------------------------

    memory_budget: Annotated[
        str | None,
        AfterValidator(_size),
        Option(
            "memory for all that is kept of a window: every gradient while they fit, otherwise a few snapshots, from "
            "which updates are computed again",
            _MEMORY,
            "SIZE",
            unset="half of the memory of the device",
            may_change=True,
            expected="a size such as 512M or 2G",
        ),
    ] = None
    keep_steps_in: Annotated[
        Literal["device", "host", "file"],
        Option(
            "where saved updates wait for the sweep back: beside the model, in host memory, or in a file in --save-dir",
            _MEMORY,
            may_change=True,
        ),
    ] = "device"
    keep_graphs: Annotated[
        bool,
        Option(
            "spend the rest of --memory-budget on the graphs of the last updates: faster, with other rounding",
            _MEMORY,
        ),
    ] = False
    hvp: Annotated[
        Literal["exact", "finite-difference"],
        Option(
            "second derivatives: exact, or from the difference of two gradients, which is faster and approximate; "
            "its error is logged for the first window",
            _MEMORY,
        ),
    ] = "exact"

    @property
    def has_off_diagonal(self) -> bool:
        """Whether the teacher has coefficients beside the diagonal."""
        return True
