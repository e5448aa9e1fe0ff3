"""The teaching options that only translation models have, and those of ``l2t-train-teacher``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from fairseq_l2t.teaching.options.declaration import Option, OptionError, one_line_errors
from fairseq_l2t.teaching.options.life_options import RunOptions
from fairseq_l2t.teaching.options.limits import LARGEST_COEFFICIENT, LARGEST_LIVES
from fairseq_l2t.teaching.options.teaching_options import TeachingOptions

__all__ = ["TranslationOptions", "TranslationTeaching"]

_LOSS, _MEASURE, _STUDENT = "loss and teacher", "measure on dev", "student"


@one_line_errors
@dataclass(frozen=True, kw_only=True)
class TranslationTeaching(TeachingOptions):
    """The teaching options for translation models as students."""

    coefficient_form: Annotated[
        Literal["diagonal", "smoothed"],
        Option(
            "coefficients of the loss: diagonal, one for each target word (the paper's), or smoothed, one more for the "
            "mean log-probability of all words, the term of label smoothing",
            _LOSS,
        ),
    ] = "diagonal"
    loss_level: Annotated[
        Literal["token", "sentence"],
        Option(
            "granularity of the sigmoid: token (the paper's loss), or sentence, the mean over a sentence, so that all "
            "tokens of an implausible pair have less weight",
            _LOSS,
        ),
    ] = "token"
    objective: Annotated[
        Literal["likelihood", "inverse-perplexity", "calibrated-perplexity", "expected-bleu"],
        Option(
            "measure on dev: likelihood, the expected token accuracy; inverse-perplexity, the geometric mean "
            "probability of the reference; calibrated-perplexity, the same at the student's best temperature; "
            "expected-bleu, the expected sentence BLEU of drawn hypotheses",
            _MEASURE,
        ),
    ] = "likelihood"
    estimator: Annotated[
        Literal["reinforce", "risk"],
        Option("gradient estimator of --objective expected-bleu", _MEASURE),
    ] = "reinforce"
    samples: Annotated[
        int,
        Field(ge=2, le=LARGEST_LIVES),
        Option(
            "hypotheses drawn for each dev sentence by expected-bleu; the other samples are the baseline of each",
            _MEASURE,
            "S",
        ),
    ] = 16
    risk_alpha: Annotated[
        float,
        Field(gt=0, le=LARGEST_COEFFICIENT),
        Option("sharpness of the risk estimator", _MEASURE, "A"),
    ] = 1.0

    bleu_tokenizer: Annotated[
        Literal["13a", "zh", "ja-mecab", "ko-mecab", "char", "intl", "none"] | None,
        Option(
            "sacrebleu's tokenizer for the sentence BLEU of --objective expected-bleu",
            _MEASURE,
            unset="that of the target language: zh, ja-mecab, ko-mecab, otherwise 13a; none with --eval-tokenized-bleu",
        ),
    ] = None

    @property
    def has_off_diagonal(self) -> bool:
        """Whether the teacher has coefficients beside the diagonal."""
        return self.coefficient_form == "smoothed"


@one_line_errors
@dataclass(frozen=True, kw_only=True)
class TranslationOptions(TranslationTeaching, RunOptions):
    """All options of ``l2t-train-teacher`` that fairseq does not have."""

    preset: Annotated[
        Literal["whole-life", "paper", "short-windows"],
        Option(
            "set of defaults: whole-life, which helped with noisy data; paper, Algorithm 1 of Wu et al. 2018 to the "
            "letter; short-windows, the paper's loss learned by likelihood in windows of 20 updates. The paper's text "
            "does not give, so that the values in paper are ours: --initial-coefficient, --stage-spread, "
            "--teacher-keys (recalled from its appendix), --teacher-updates, --teacher-lr, --teacher-adam-betas, "
            "--estimator, --samples and --validate-interval-updates",
            "run",
            may_change=True,
        ),
    ] = "whole-life"
    student_init: Annotated[
        str | None,
        Option(
            "fairseq checkpoint with the initial weights of every student",
            _STUDENT,
            "CHECKPOINT",
            unset="random weights",
            expected="a path",
        ),
    ] = None
    trust_module: Annotated[
        tuple[str, ...],
        Option(
            "accept a module class whose second derivatives are not verified, by its full name (my_plugin.MyLayer), at "
            "your own risk; l2t-doctor measures them; may be given several times",
            _STUDENT,
            "CLASS",
            unset="none",
            expected="the full name of a class",
        ),
    ] = ()
    allow_dev_overlap: Annotated[bool, Option("accept dev pairs that are also in the training data", _STUDENT)] = False
    allow_other_data: Annotated[
        bool,
        Option(
            "continue a run although the content of its training data, dev data or initial weights has changed; the "
            "dictionaries must be the same",
            "run",
            may_change=True,
        ),
    ] = False
    skip_quick_check: Annotated[
        bool,
        Option(
            "skip the quick form of l2t-doctor, which refuses students with wrong hypergradients",
            _STUDENT,
            may_change=True,
        ),
    ] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.allow_other_data and not (self.resume or self.resume_or_start):
            raise OptionError("--allow-other-data: needs --resume or --resume-or-start")
