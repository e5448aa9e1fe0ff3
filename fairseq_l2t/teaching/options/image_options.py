"""The teaching options that only image classifiers have."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic.dataclasses import dataclass

from fairseq_l2t.teaching.options.declaration import Option, one_line_errors
from fairseq_l2t.teaching.options.teaching_options import TeachingOptions

__all__ = ["ImageTeaching"]

_MEASURE = "measure on dev"


@one_line_errors
@dataclass(frozen=True, kw_only=True)
class ImageTeaching(TeachingOptions):
    """The teaching options for image classifiers as students."""

    objective: Annotated[
        Literal["expected-accuracy", "inverse-perplexity", "calibrated-perplexity"],
        Option(
            "measure on dev: expected-accuracy, the mean probability of the label; inverse-perplexity, its geometric "
            "mean; calibrated-perplexity, the same at the student's best temperature",
            _MEASURE,
        ),
    ] = "calibrated-perplexity"
