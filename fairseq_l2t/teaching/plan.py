"""Resolution of the given options to the numbers of a run: values that depend on others are computed here."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Literal, TypeVar

from pydantic.dataclasses import dataclass

from fairseq_l2t.loss.dynamic_loss import LossShape
from fairseq_l2t.teaching.options.declaration import OptionError, flag_of, one_line_errors
from fairseq_l2t.teaching.options.life_options import DEFAULT_TOTAL_UPDATES, DevOptions, LifeOptions
from fairseq_l2t.teaching.options.teaching_options import DEFAULT_LIVES, TeachingOptions

__all__ = ["JUDGING_SEED_OFFSET", "RESOLVED", "TeachingPlan", "life_of", "plan_of", "resolve"]

DEV_MEASURES_PER_LIFE = 5
"""Dev measures in a life, from which the default of --validate-interval-updates is computed."""

JUDGING_SEED_OFFSET = 1_000_000
"""Distance of the seeds of judging lives from those of the training lives."""

T = TypeVar("T", bound=TeachingOptions)


def life_of(
    options: LifeOptions, *, max_update: int | None = None, warmup_updates: int | None = None
) -> tuple[int, int]:
    """Return the number of updates of a life, and the number of cross-entropy updates at its start.

    Args:
        options: as given.
        max_update, warmup_updates: values of fairseq's options of these names, if given.

    Raises:
        OptionError: no update is left for the teacher.
    """
    total = options.total_updates or max_update or DEFAULT_TOTAL_UPDATES
    if total < 1:
        raise OptionError(f"--max-update: {total}; expected a whole number of at least 1, or --total-updates")
    begin = options.cross_entropy_updates
    if begin is None:
        begin = warmup_updates or 0
    if not 0 <= begin < total:
        raise OptionError(
            f"--cross-entropy-updates / --warmup-updates: {begin}; expected 0 to {total - 1}, less than --total-updates"
        )
    return total, begin


def resolve(
    options: T,
    given: Collection[str],
    *,
    max_update: int | None = None,
    warmup_updates: int | None = None,
) -> T:
    """Return the options with all values resolved.

    =========================  =====================================================================================
    total_updates              fairseq's --max-update, otherwise `DEFAULT_TOTAL_UPDATES`
    cross_entropy_updates      fairseq's --warmup-updates if given, otherwise 0
    unroll_length              all updates after the cross-entropy; a preset's length is cut to that of a life
    teacher_updates            all windows of `DEFAULT_LIVES` lives
    validate_interval_updates  `DEV_MEASURES_PER_LIFE` measures in a life
    loss_scale                 4 / initial_coefficient
    initial_off_diagonal       0
    teacher_word_lr            a tenth of teacher_lr
    teacher_off_diagonal_lr    a tenth of teacher_lr
    both of these              teacher_lr if teacher_optimizer is plain
    =========================  =====================================================================================

    A value of the preset that does not apply to the given options is dropped: the initial value and learning rate of
    off-diagonal coefficients for a diagonal Phi, teacher_lr_shrink without holdout_lives, a dev_holdout of 0 with
    holdout_lives, teacher_optimizer plain with the learning rate of a part, stage_spread for a single key.

    Args:
        options: as given, the rest from a preset.
        given: names of the options that are given.
        max_update, warmup_updates: values of fairseq's options of these names, if given.

    Raises:
        OptionError: names the option, its value and the values allowed.
    """
    total, begin = life_of(options, max_update=max_update, warmup_updates=warmup_updates)
    whole = max(1, total - begin)
    window = options.unroll_length
    if window is None:
        window = whole
    elif "unroll_length" not in given:
        window = min(window, total)
    updates = options.teacher_updates
    interval = options.validate_interval_updates
    beside, beside_lr = options.initial_off_diagonal, options.teacher_off_diagonal_lr
    if not options.has_off_diagonal:
        beside = beside if "initial_off_diagonal" in given else 0.0
        beside_lr = beside_lr if "teacher_off_diagonal_lr" in given else 0.0
        if beside:
            raise OptionError(f"--initial-off-diagonal: {beside}; expected 0 unless --coefficient-form is smoothed")
        if beside_lr:
            raise OptionError(
                f"--teacher-off-diagonal-lr: {beside_lr}; needs --coefficient-form smoothed, because a diagonal Phi "
                "has no off-diagonal coefficient"
            )
    shrink = options.teacher_lr_shrink
    if not options.holdout_lives and "teacher_lr_shrink" not in given:
        shrink = 1.0
    optimizer, word_lr, beside_lr = _steps(options, given, beside_lr)
    return replace(
        options,
        total_updates=total,
        cross_entropy_updates=begin,
        unroll_length=window,
        teacher_updates=DEFAULT_LIVES * -(-whole // window) if updates is None else updates,
        validate_interval_updates=max(1, total // DEV_MEASURES_PER_LIFE) if interval is None else interval,
        loss_scale=4.0 / options.initial_coefficient if options.loss_scale is None else options.loss_scale,
        initial_off_diagonal=0.0 if beside is None else beside,
        dev_holdout=_dev_holdout(options, given),
        teacher_optimizer=optimizer,
        teacher_word_lr=options.teacher_lr / 10 if word_lr is None else word_lr,
        teacher_off_diagonal_lr=options.teacher_lr / 10 if beside_lr is None else beside_lr,
        teacher_lr_shrink=shrink,
        stage_spread=options.stage_spread if options.teacher_keys > 1 else 0.0,
    )


def _dev_holdout(options: TeachingOptions, given: Collection[str]) -> float:
    is_dropped = options.holdout_lives and not options.dev_holdout and "dev_holdout" not in given
    return DevOptions().dev_holdout if is_dropped else options.dev_holdout


def _steps(
    options: TeachingOptions, given: Collection[str], off_diagonal_lr: float | None
) -> tuple[Literal["levels", "plain"], float | None, float | None]:
    """Return the kind of the teacher's optimizer, and the learning rates of its parts; None: the default."""
    one_rate = {"teacher_word_lr": options.teacher_lr}
    if options.has_off_diagonal:
        one_rate["teacher_off_diagonal_lr"] = options.teacher_lr
    other = [name for name, lr in one_rate.items() if name in given and getattr(options, name) not in (None, lr)]
    if options.teacher_optimizer == "levels" or (other and "teacher_optimizer" not in given):
        return "levels", options.teacher_word_lr, off_diagonal_lr
    if other:
        raise OptionError(
            f"{flag_of(other[0])}: {getattr(options, other[0])}; needs --teacher-optimizer levels, because plain has "
            f"one learning rate, --teacher-lr {options.teacher_lr}"
        )
    return "plain", options.teacher_lr, one_rate.get("teacher_off_diagonal_lr", off_diagonal_lr)


@one_line_errors
@dataclass(frozen=True, kw_only=True)
class TeachingPlan(TeachingOptions):
    """Resolved options: the numbers of a run.

    Args:
        seed: life k of a student has the seed ``seed + k``.

    Raises:
        OptionError: an unresolved value, or a value that does not fit another one; names option, value and range.
    """

    seed: int = 1

    if TYPE_CHECKING:  # `resolve` has put a value in place of each None, which `__post_init__` checks
        total_updates: int
        cross_entropy_updates: int
        validate_interval_updates: int
        unroll_length: int
        teacher_updates: int
        loss_scale: float
        initial_off_diagonal: float
        teacher_word_lr: float
        teacher_off_diagonal_lr: float

    @property
    def holdout_seeds(self) -> range:
        """Seeds of the judging lives, far from those of the training lives."""
        first = self.seed + JUDGING_SEED_OFFSET
        return range(first, first + self.holdout_lives)

    @property
    def kept_length(self) -> int:
        """Number of updates of a whole window that are saved for the sweep."""
        return self.backward_length or self.unroll_length

    @property
    def dev_interval(self) -> int:
        """Updates between two measures on dev; 0: one after the cross-entropy updates and after each window."""
        return self.validate_interval_updates

    def __post_init__(self) -> None:
        unresolved = [name for name in RESOLVED if getattr(self, name) is None]
        if unresolved:
            raise OptionError(f"--{unresolved[0].replace('_', '-')}: not resolved; expected a number")
        _require_at_most("--unroll-length", self.unroll_length, 1, self.total_updates, "--total-updates")
        _require_at_most("--backward-length", self.backward_length, 0, self.unroll_length, "--unroll-length")
        whole = self.total_updates - self.cross_entropy_updates
        if self.lives_per_update > 1 and self.unroll_length < whole:
            raise OptionError(
                f"--unroll-length: {self.unroll_length}; expected {whole}, a whole life after --cross-entropy-updates, "
                f"because --lives-per-update is {self.lives_per_update}"
            )
        if not self.dev_holdout and self.holdout_lives:
            raise OptionError(
                f"--dev-holdout: {self.dev_holdout}; expected a number above 0 and below 1, so that --holdout-lives "
                f"{self.holdout_lives} has dev examples to select the best teacher"
            )
        if self.teacher_lr_shrink < 1 and not self.holdout_lives:
            raise OptionError(f"--teacher-lr-shrink: {self.teacher_lr_shrink}; needs --holdout-lives")
        if self.keep_graphs and self.memory_budget is None:
            raise OptionError("--keep-graphs: needs --memory-budget, which limits the memory of the graphs")
        if self.keep_graphs and self.keep_steps_in != "device":
            raise OptionError(f"--keep-graphs: needs --keep-steps-in device; --keep-steps-in is {self.keep_steps_in}")

    def loss_shape(self, level: str = "token") -> LossShape:
        """Return the shape of the loss; ``level``: see `loss.dynamic_loss.LossShape`."""
        return LossShape(self.loss_scale, self.cross_entropy_mix, level)


RESOLVED = (
    "total_updates",
    "cross_entropy_updates",
    "validate_interval_updates",
    "unroll_length",
    "teacher_updates",
    "loss_scale",
    "initial_off_diagonal",
    "teacher_word_lr",
    "teacher_off_diagonal_lr",
)
"""Names of the options that `resolve` computes."""


def plan_of(resolved: TeachingOptions, seed: int) -> TeachingPlan:
    """Return the plan of resolved options; raise `OptionError` if their values do not fit together."""
    return TeachingPlan(**{field.name: getattr(resolved, field.name) for field in fields(TeachingOptions)}, seed=seed)


def _require_at_most(option: str, value: int, least: int, most: int, most_name: str) -> None:
    if value > most:
        raise OptionError(
            f"{option}: {value}; expected a whole number of at least {least} and at most {most} ({most_name})"
        )
