"""What the options of ``l2t-train-teacher`` are where they are not given: a way to teach as a whole, by ``--preset``.

``whole-life``, the default, is what brought gains with 30 % of the training pairs misaligned
(docs/results/translation.md): a teacher update for each whole life of a student, judged by lives of one seed. It
was measured as a whole, not option by option. ``paper`` is the published loss (Wu et al. 2018), one sigmoid a token,
learned in short windows.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from fairseq_l2t.loss.teacher import DEFAULT_INITIAL_COEFFICIENT

__all__ = ["PRESETS", "Preset", "preset_of"]


@dataclass(frozen=True)
class Preset:
    """Defaults.

    Args:
        options: those that hold whatever else is given, by fairseq's names in Python.
        unroll_length: updates of a window, no more than a life has; None: a whole life after its cross-entropy.
        teacher_updates: in all; None: those of ``lives``.
        lives: whole lives of a student, where ``teacher_updates`` does not say.
        dev_refreshes: how often in a life the dev measures of the state are taken anew; 0: between windows alone.
        initial_off_diagonal: for the coefficient form ``smoothed``.
        teacher_off_diagonal_lr: for the coefficient form ``smoothed``; None: a tenth of --teacher-lr.
        teacher_lr_shrink: where lives judge the teacher; otherwise there is nothing to go back to.
    """

    options: dict[str, str | int | float]
    unroll_length: int | None
    teacher_updates: int | None = None
    lives: int = 0
    dev_refreshes: int = 0
    initial_off_diagonal: float = 0.0
    teacher_off_diagonal_lr: float | None = None
    teacher_lr_shrink: float = 1.0

    @property
    def names(self) -> set[str]:
        """Names of the options it has values for, but for how long a teacher is trained."""
        return {
            *self.options,
            "unroll_length",
            "validate_interval_updates",
            "initial_off_diagonal",
            "teacher_off_diagonal_lr",
            "teacher_lr_shrink",
        }

    def settle(self, given: argparse.Namespace) -> None:
        """Put values where none are given and the right one depends on other options."""
        smoothed = given.coefficient_form == "smoothed"
        if given.initial_off_diagonal is None:
            given.initial_off_diagonal = self.initial_off_diagonal if smoothed else 0.0
        if given.teacher_off_diagonal_lr is None:
            default = given.teacher_lr / 10 if self.teacher_off_diagonal_lr is None else self.teacher_off_diagonal_lr
            given.teacher_off_diagonal_lr = default if smoothed else 0.0
        if given.teacher_lr_shrink is None:
            given.teacher_lr_shrink = self.teacher_lr_shrink if given.holdout_lives else 1.0

    def window(self, given: int | None, total_updates: int, cross_entropy_updates: int) -> int:
        """Return the updates of a window."""
        if given is not None:
            return given
        whole = total_updates - cross_entropy_updates
        return whole if self.unroll_length is None else min(self.unroll_length, total_updates)

    def updates(self, given: int | None, total_updates: int, cross_entropy_updates: int, window: int) -> int:
        """Return the teacher updates: of lives that are cut into windows, one each."""
        if given is None:
            given = self.teacher_updates
        return self.lives * -(-(total_updates - cross_entropy_updates) // window) if given is None else given

    def dev_interval(self, given: int, total_updates: int) -> int:
        """Return the updates between two looks at dev; 0: one between windows."""
        if given > 0 or not self.dev_refreshes:
            return max(0, given)
        return max(1, total_updates // self.dev_refreshes)


PRESETS = {
    "whole-life": Preset(
        {
            "coefficient_form": "smoothed",
            "dev_batch": 256,
            "holdout_lives": 1,
            "initial_coefficient": 0.3,
            "loss_level": "sentence",
            "objective": "calibrated-perplexity",
            "stage_spread": 4.0,
            "teacher_clip_norm": 0.1,
            "teacher_lr": 0.07,
        },
        unroll_length=None,
        lives=8,
        dev_refreshes=5,
        initial_off_diagonal=0.075,
        teacher_off_diagonal_lr=0.005,
        teacher_lr_shrink=0.5,
    ),
    "paper": Preset(
        {
            "coefficient_form": "diagonal",
            "dev_batch": 64,
            "holdout_lives": 0,
            "initial_coefficient": DEFAULT_INITIAL_COEFFICIENT,
            "loss_level": "token",
            "objective": "likelihood",
            "stage_spread": 0.0,
            "teacher_clip_norm": 0.0,
            "teacher_lr": 0.01,
        },
        unroll_length=20,
        teacher_updates=100,
    ),
}
"""By name, the default one first."""


def preset_of(arguments: Sequence[str]) -> Preset:
    """Return the preset that a command line names, or the default one.

    One that does not exist is refused by the parser that has all options.
    """
    default = next(iter(PRESETS))
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument("--preset", nargs="?", default=default)
    known, _ = parser.parse_known_args(arguments)
    return PRESETS.get(known.preset, PRESETS[default])
