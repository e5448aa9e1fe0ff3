"""The options that all kinds of runs share, those of students without a teacher too: life, dev set, continuation."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from fairseq_l2t.teaching.options.declaration import Option, OptionError, one_line_errors
from fairseq_l2t.teaching.options.limits import LARGEST_COUNT

__all__ = ["DEFAULT_TOTAL_UPDATES", "DevOptions", "LifeOptions", "RunOptions"]

DEFAULT_TOTAL_UPDATES = 1000
"""Updates of a student's life if neither --total-updates nor --max-update is given."""

_LIFE, _DEV, _RUN = "life of a student", "dev set", "run"


@one_line_errors
@dataclass(frozen=True, kw_only=True)
class LifeOptions:
    """Length of a student's life."""

    total_updates: Annotated[
        int | None,
        Field(ge=1, le=LARGEST_COUNT),
        Option(
            "length of a student's life in updates",
            _LIFE,
            "H",
            unset=f"--max-update, otherwise {DEFAULT_TOTAL_UPDATES}",
        ),
    ] = None
    cross_entropy_updates: Annotated[
        int | None,
        Field(ge=0, le=LARGEST_COUNT),
        Option(
            "updates of plain cross-entropy at the start of each taught life, fewer than --total-updates",
            _LIFE,
            "N",
            unset="--warmup-updates if given, otherwise 0",
        ),
    ] = None


@one_line_errors
@dataclass(frozen=True, kw_only=True)
class DevOptions:
    """Interval of the dev measures, and division of the dev set."""

    validate_interval_updates: Annotated[
        int | None,
        Field(ge=0, le=LARGEST_COUNT),
        Option(
            "student updates between two measures on dev, which are part of the student's state; 0: measure only "
            "between windows",
            _DEV,
            "N",
            unset="a fifth of a life",
        ),
    ] = 0
    dev_holdout: Annotated[
        float,
        Field(ge=0, lt=1),
        Option(
            "share of the dev set that selects the best teacher and does not train it; 0: all trains the teacher, and "
            "the last teacher is the result (the paper's)",
            _DEV,
            "SHARE",
        ),
    ] = 0.2


@one_line_errors
@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Configuration file, and whether a run is continued."""

    config: Annotated[
        str | None,
        Option(
            "YAML file with options by name; the command line overrides it",
            _RUN,
            "FILE",
            unset="none",
            may_change=True,
            expected="a path",
        ),
    ] = None
    resume: Annotated[
        bool, Option("continue the run in --save-dir, which must contain a saved one", _RUN, may_change=True)
    ] = False
    resume_or_start: Annotated[
        bool,
        Option("continue the run in --save-dir if it contains a saved one, otherwise start one", _RUN, may_change=True),
    ] = False

    def __post_init__(self) -> None:
        if self.resume and self.resume_or_start:
            raise OptionError("--resume-or-start: given beside --resume; expected one of the two")
