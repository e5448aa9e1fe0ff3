"""Values that depend on other options, and values that do not fit each other."""

import dataclasses

import pytest

from fairseq_l2t.loss.dynamic_loss import LOSS_LEVELS
from fairseq_l2t.loss.teacher import DEFAULT_INITIAL_COEFFICIENT, DEFAULT_KEYS, VOCABULARY_FORMS
from fairseq_l2t.objectives import ESTIMATORS
from fairseq_l2t.objectives.bleu_tokenizers import BLEU_TOKENIZERS
from fairseq_l2t.teaching.options.declaration import OptionError, declared
from fairseq_l2t.teaching.options.image_options import ImageTeaching
from fairseq_l2t.teaching.options.presets import PRESETS
from fairseq_l2t.teaching.options.teaching_options import TeachingOptions
from fairseq_l2t.teaching.options.translation_options import TranslationTeaching
from fairseq_l2t.teaching.plan import TeachingPlan, plan_of, resolve
from fairseq_l2t.testing.toy_lives import JUDGED
from fairseq_l2t.unroll.adjoint_sweep import PRODUCTS
from fairseq_l2t.unroll.memory.stores import PLACES


def resolved(given, preset="whole-life", **from_fairseq):
    return resolve(dataclasses.replace(PRESETS[preset], **given), set(given), **from_fairseq)


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_every_value_is_in_place(preset):
    plan = plan_of(resolved({"total_updates": 500}, preset), seed=3)
    may_be_absent = {"memory_budget", "dev_batch"}
    assert {name for name in declared(TeachingOptions) if getattr(plan, name) is None} <= may_be_absent
    assert plan.seed == 3 and plan.total_updates == 500
    # The numbers of a run are resolved already.
    assert resolve(resolved({"total_updates": 500}, preset), set(declared(TeachingOptions))) == resolved(
        {"total_updates": 500}, preset
    )


def test_the_length_of_a_life():
    assert resolved({}).total_updates == 1000
    assert resolved({}, max_update=50).total_updates == 50
    assert resolved({"total_updates": 7}, max_update=50).total_updates == 7
    assert resolved({}, warmup_updates=5).cross_entropy_updates == 5
    assert resolved({"cross_entropy_updates": 0}, warmup_updates=5).cross_entropy_updates == 0
    with pytest.raises(OptionError, match="--cross-entropy-updates / --warmup-updates: 9; expected 0 to 8"):
        resolved({"total_updates": 9}, warmup_updates=9)


def test_what_depends_on_the_length_of_a_life():
    found = resolved({"total_updates": 500, "cross_entropy_updates": 20})
    assert (found.unroll_length, found.teacher_updates, found.validate_interval_updates) == (480, 8, 100)
    assert resolved({"total_updates": 12}, "paper").unroll_length == 12
    with pytest.raises(OptionError, match=r"--unroll-length: 20; .* at most 12 \(--total-updates\)"):
        plan_of(resolved({"total_updates": 12, "unroll_length": 20}, "paper"), seed=1)


def test_coefficients_beside_the_diagonal():
    assert resolved({}).initial_off_diagonal == 0.075
    diagonal = resolved({"coefficient_form": "diagonal"})
    assert (diagonal.initial_off_diagonal, diagonal.teacher_off_diagonal_lr) == (0.0, 0.0)
    with pytest.raises(OptionError, match="--initial-off-diagonal: 0.1; expected 0 unless --coefficient-form"):
        resolved({"coefficient_form": "diagonal", "initial_off_diagonal": 0.1})
    with pytest.raises(OptionError, match="--teacher-off-diagonal-lr: 0.1; needs --coefficient-form smoothed"):
        resolved({"coefficient_form": "diagonal", "teacher_off_diagonal_lr": 0.1})


def test_options_without_an_effect():
    assert resolved({"holdout_lives": 0}).teacher_lr_shrink == 1.0
    assert resolved({"teacher_keys": 1}).stage_spread == 0.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dev_holdout": 0}, "--dev-holdout: 0.0; expected a number above 0 and below 1"),
        ({"keep_graphs": True}, "--keep-graphs: needs --memory-budget"),
        ({"keep_graphs": True, "memory_budget": "1G", "keep_steps_in": "file"}, "--keep-steps-in is file"),
        ({"teacher_lr_shrink": 0.5, "holdout_lives": 0}, "--teacher-lr-shrink: 0.5; needs --holdout-lives"),
        ({"unroll_length": None}, "--unroll-length: not resolved"),
        ({"memory_budget": "lots"}, "--memory-budget: lots; expected a size such as 512M or 2G"),
    ],
)
def test_values_that_do_not_fit_each_other(change, message):
    with pytest.raises(OptionError, match=message):
        dataclasses.replace(JUDGED, **change)
    assert isinstance(dataclasses.replace(JUDGED, memory_budget="1G", keep_graphs=True), TeachingPlan)


def test_declared_choices_are_those_of_the_engine():
    choices = {name: one.allowed for name, one in declared(TranslationTeaching).items()}
    engine = {
        "bleu_tokenizer": BLEU_TOKENIZERS,
        "coefficient_form": VOCABULARY_FORMS,
        "estimator": ESTIMATORS,
        "hvp": PRODUCTS,
        "keep_steps_in": PLACES,
        "loss_level": LOSS_LEVELS,
    }
    assert {name: choices[name] for name in engine} == {
        name: f"one of {', '.join(known)}" for name, known in engine.items()
    }
    paper = PRESETS["paper"]
    assert (paper.teacher_keys, paper.initial_coefficient) == (DEFAULT_KEYS, DEFAULT_INITIAL_COEFFICIENT)
    assert ImageTeaching().has_off_diagonal
