"""The teaching options: one declaration each, with name, type, range, help text, group and default.

The defaults of the fields are those of the preset ``short-windows``. Another preset (`teaching.options.presets`) uses
them unless it sets others. ``None`` means that the value depends on other options; `teaching.plan.resolve`
computes it.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field
from pydantic.dataclasses import dataclass

from fairseq_l2t.loss.dynamic_loss import LARGEST_SCALE
from fairseq_l2t.teaching.options.declaration import Option, one_line_errors
from fairseq_l2t.teaching.options.life_options import DevOptions, LifeOptions
from fairseq_l2t.teaching.options.limits import (
    LARGEST_COEFFICIENT,
    LARGEST_COUNT,
    LARGEST_LIVES,
    LARGEST_NORM,
    LARGEST_SECONDS,
    LARGEST_TEACHER_RATE,
    SMALLEST_COEFFICIENT,
)
from fairseq_l2t.unroll.memory.budget import bytes_of

__all__ = ["DEFAULT_LIVES", "TeachingOptions"]

DEFAULT_LIVES = 8
"""Number of training lives from which the default of --teacher-updates is computed."""

_LOSS, _UPDATES, _STEPS, _MEMORY = "loss and teacher", "teacher updates", "steps of the teacher", "memory and speed"


def _size(text: str | None) -> str | None:
    if text is not None:
        bytes_of(text)
    return text


@one_line_errors
@dataclass(frozen=True, kw_only=True)
class TeachingOptions(LifeOptions, DevOptions):
    """The teaching options that translation and images share."""

    # --- loss and teacher -------------------------------------------------------------------------------------

    initial_coefficient: Annotated[
        float,
        Field(ge=SMALLEST_COEFFICIENT, le=LARGEST_COEFFICIENT),
        Option("initial coefficient Phi of the label", _LOSS, "PHI"),
    ] = 0.1
    initial_off_diagonal: Annotated[
        float | None,
        Field(ge=-LARGEST_COEFFICIENT, le=LARGEST_COEFFICIENT),
        Option(
            "initial off-diagonal coefficient; PHI * E / (1 - E) corresponds to label smoothing of E",
            _LOSS,
            "PSI",
            unset="0",
        ),
    ] = None
    loss_scale: Annotated[
        float | None,
        Field(gt=0, le=LARGEST_SCALE),
        Option(
            "factor of the sigmoid loss; the default gives the gradient of cross-entropy where PHI log p is near 0",
            _LOSS,
            "C",
            unset="4 / PHI",
        ),
    ] = None
    cross_entropy_mix: Annotated[
        float, Field(ge=0, le=1), Option("share of plain cross-entropy in the loss", _LOSS, "ALPHA")
    ] = 0.0
    teacher_keys: Annotated[int, Field(ge=1, le=LARGEST_LIVES), Option("number of keys of the teacher", _LOSS, "N")] = 5
    stage_spread: Annotated[
        float,
        Field(ge=0, le=LARGEST_COEFFICIENT),
        Option(
            "initial spread of the keys over a life; 0: every key is active in the whole life; about 4: the first key "
            "is active at the beginning, the last at the end",
            _LOSS,
            "D",
        ),
    ] = 0.0

    # --- teacher updates --------------------------------------------------------------------------------------

    teacher_updates: Annotated[
        int | None,
        Field(ge=0, le=LARGEST_COUNT),
        Option(
            "number of teacher updates; 0: write the initial teacher, which is a fixed loss",
            _UPDATES,
            "K",
            unset=f"all windows of {DEFAULT_LIVES} lives",
            may_change=True,
        ),
    ] = 100
    unroll_length: Annotated[
        int | None,
        Field(ge=1, le=LARGEST_COUNT),
        Option(
            "length of a window: student updates between two teacher updates, at most --total-updates",
            _UPDATES,
            "T",
            unset="all updates of a life after those of cross-entropy",
        ),
    ] = 20
    backward_length: Annotated[
        int,
        Field(ge=0, le=LARGEST_COUNT),
        Option(
            "number of last updates of a window that the sweep uses, at most --unroll-length; a smaller number is "
            "cheaper and less noisy, but biased; 0: all",
            _UPDATES,
            "K",
        ),
    ] = 0
    lives_per_update: Annotated[
        int,
        Field(ge=1, le=LARGEST_LIVES),
        Option(
            "lives whose hypergradients are averaged in a teacher update; needs windows of whole lives; torchrun "
            "shares them out among its processes",
            _UPDATES,
            "K",
        ),
    ] = 1
    worker_timeout: Annotated[
        float,
        Field(gt=0, le=LARGEST_SECONDS),
        Option(
            "seconds that a process started by torchrun waits for the others, longer than their lives take; then the "
            "run ends and names the process that did not answer",
            _UPDATES,
            "SECONDS",
            may_change=True,
        ),
    ] = 3600.0
    holdout_lives: Annotated[
        int,
        Field(ge=0, le=LARGEST_LIVES),
        Option(
            "number of judging lives, which measure the teacher on held-back dev examples before its first update and "
            "after each training life; their seeds are the same for all teachers; 0: judge by the training life, "
            "whose measure depends more on its seed than on the teacher",
            _UPDATES,
            "N",
        ),
    ] = 0
    dev_batch: Annotated[
        int | None,
        Field(ge=1, le=LARGEST_COUNT),
        Option(
            "dev examples used for the measure of a teacher update",
            _UPDATES,
            "B",
            unset="all dev examples not held back",
        ),
    ] = 64
    max_bad_steps: Annotated[
        int,
        Field(ge=1, le=LARGEST_COUNT),
        Option("stop after this many windows in a row that end in NaN or infinity", _UPDATES, "N", may_change=True),
    ] = 3

    # --- steps of the teacher ---------------------------------------------------------------------------------

    teacher_lr: Annotated[
        float,
        Field(gt=0, le=LARGEST_TEACHER_RATE),
        Option("learning rate of the teacher's Adam, for the part that all labels share", _STEPS, "LR"),
    ] = 0.01
    teacher_word_lr: Annotated[
        float | None,
        Field(ge=0, le=LARGEST_TEACHER_RATE),
        Option(
            "learning rate of the part of each single label; 0: the same coefficient for all labels",
            _STEPS,
            "LR",
            unset="a tenth of --teacher-lr",
        ),
    ] = None
    teacher_off_diagonal_lr: Annotated[
        float | None,
        Field(ge=0, le=LARGEST_TEACHER_RATE),
        Option(
            "learning rate of the part that the off-diagonal coefficients share",
            _STEPS,
            "LR",
            unset="a tenth of --teacher-lr",
        ),
    ] = None
    teacher_lr_shrink: Annotated[
        float,
        Field(gt=0, le=1),
        Option(
            "factor for all learning rates of the teacher when --holdout-lives judge it worse than the best one; "
            "training then returns to the best teacher; 1: no return (always so without --holdout-lives)",
            _STEPS,
            "FACTOR",
        ),
    ] = 1.0
    teacher_clip_norm: Annotated[
        float,
        Field(ge=0, le=LARGEST_NORM),
        Option("maximum norm of the hypergradient; 0: no limit", _STEPS, "NORM"),
    ] = 0.0

    teacher_optimizer: Annotated[
        Literal["levels", "plain"],
        Option(
            "what the teacher's Adam steps on: levels, the part that all labels share and the rest of each label, each "
            "with its learning rate; plain, W and V themselves with --teacher-lr alone (the paper's)",
            _STEPS,
        ),
    ] = "levels"
    teacher_adam_betas: Annotated[
        tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]],
        Option("decay rates of the moments of the teacher's Adam, such as '(0.9, 0.999)'", _STEPS, "B"),
    ] = (0.9, 0.999)

    # --- memory and speed -------------------------------------------------------------------------------------

    memory_budget: Annotated[
        str | None,
        AfterValidator(_size),
        Option(
            "memory for the saved data of a window: all gradients if they fit, otherwise a few snapshots, from which "
            "updates are computed again",
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
            "place of saved updates until the sweep: device, with the model; host, host memory; file, in --save-dir",
            _MEMORY,
            may_change=True,
        ),
    ] = "device"
    keep_graphs: Annotated[
        bool,
        Option(
            "use the rest of --memory-budget for the graphs of the last updates: faster, with different rounding",
            _MEMORY,
        ),
    ] = False
    hvp: Annotated[
        Literal["exact", "finite-difference"],
        Option(
            "second derivatives: exact, or the difference of two gradients, which is faster and approximate; its error "
            "in the first window is logged",
            _MEMORY,
        ),
    ] = "exact"

    @property
    def has_off_diagonal(self) -> bool:
        """Whether the teacher has off-diagonal coefficients."""
        return True
