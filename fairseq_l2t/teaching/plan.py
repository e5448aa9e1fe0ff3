"""The numbers of the outer loop."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["TeachingPlan"]

_APART = 1_000_000


@dataclass(frozen=True)
class TeachingPlan:
    """The numbers of the outer loop.

    Args:
        unroll_length: student updates T between two teacher updates.
        backward_length: the last updates of a window that the sweep goes back through; 0: all. Truncated
            back-propagation (Shaban et al., AISTATS 2019): cheaper, and biased.
        total_updates: student updates of one life.
        teacher_updates: teacher updates in all.
        teacher_lr: learning rate of the teacher's Adam, for what all words share.
        teacher_word_lr: the same for each word's own part.
        teacher_clip_norm: bound on the norm of the hypergradient that reaches Adam; 0: none.
        max_bad_steps: windows in a row that may end in NaN or infinity before the training is given up.
        seed: life k of a student has the seed ``seed + k``.
        holdout_lives: lives without a hypergradient that judge a teacher after each life it was taught by; their
            seeds are the same for all teachers. 0: a teacher is judged by the life that taught it, which other seeds
            tell apart from the next more than the teacher does.
        teacher_off_diagonal_lr: as teacher_lr, for the level that the off-diagonal coefficients of a full Phi share.
        teacher_lr_shrink: where the ``holdout_lives`` find a teacher worse than the best, it goes back to that, and all
            its learning rates are multiplied by this number; 1: it goes on from where it is.

    Raises:
        ValueError: names the option, its value and its range.
    """

    unroll_length: int
    total_updates: int
    teacher_updates: int
    teacher_lr: float
    teacher_word_lr: float
    teacher_clip_norm: float = 0.0
    max_bad_steps: int = 3
    seed: int = 1
    backward_length: int = 0
    holdout_lives: int = 0
    teacher_off_diagonal_lr: float = 0.0
    teacher_lr_shrink: float = 1.0

    @property
    def holdout_seeds(self) -> range:
        """Seeds of the lives that judge, far from those that teach."""
        return range(self.seed + _APART, self.seed + _APART + self.holdout_lives)

    @property
    def kept_length(self) -> int:
        """Updates of a whole window that are kept for the sweep."""
        return self.backward_length or self.unroll_length

    def __post_init__(self) -> None:
        _require_whole("--total-updates", self.total_updates, 1)
        _require_whole("--unroll-length", self.unroll_length, 1, self.total_updates, "--total-updates")
        _require_whole("--backward-length", self.backward_length, 0, self.unroll_length, "--unroll-length")
        _require_whole("--teacher-updates", self.teacher_updates, 0)
        _require_whole("--max-bad-steps", self.max_bad_steps, 1)
        _require_whole("--holdout-lives", self.holdout_lives, 0)
        if not (self.teacher_lr > 0 and math.isfinite(self.teacher_lr)):
            raise ValueError(f"--teacher-lr: {self.teacher_lr}; expected a finite number above 0")
        if not 0 < self.teacher_lr_shrink <= 1:
            raise ValueError(f"--teacher-lr-shrink: {self.teacher_lr_shrink}; expected a number above 0, at most 1")
        if self.teacher_lr_shrink < 1 and not self.holdout_lives:
            raise ValueError(f"--teacher-lr-shrink: {self.teacher_lr_shrink}; needs --holdout-lives, which judge")
        for name in ("teacher_word_lr", "teacher_clip_norm", "teacher_off_diagonal_lr"):
            value = getattr(self, name)
            if not (value >= 0 and math.isfinite(value)):
                option = f"--{name.replace('_', '-')}"
                raise ValueError(f"{option}: {value}; expected a finite number of at least 0")


def _require_whole(option: str, value: int, least: int, most: int | None = None, most_name: str = "") -> None:
    if value < least or (most is not None and value > most):
        limit = "" if most is None else f" and at most {most} ({most_name})"
        raise ValueError(f"{option}: {value}; expected a whole number of at least {least}{limit}")
