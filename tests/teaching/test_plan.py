"""Values that depend on other options, and values that do not fit each other."""

import dataclasses

import pytest

from fairseq_l2t.loss.dynamic_loss import LOSS_LEVELS
from fairseq_l2t.loss.teacher import DEFAULT_INITIAL_COEFFICIENT, DEFAULT_KEYS, VOCABULARY_FORMS
from fairseq_l2t.objectives import ESTIMATORS
from fairseq_l2t.objectives.bleu_tokenizers import BLEU_TOKENIZERS
from fairseq_l2t.teaching.options.declaration import OptionError, declared, flag_of
from fairseq_l2t.teaching.options.image_options import ImageTeaching
from fairseq_l2t.teaching.options.presets import OURS_IN_PAPER, PRESETS
from fairseq_l2t.teaching.options.teaching_options import TeachingOptions
from fairseq_l2t.teaching.options.translation_options import TranslationOptions, TranslationTeaching
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
    assert resolved({"total_updates": 12}, "short-windows").unroll_length == 12
    with pytest.raises(OptionError, match=r"--unroll-length: 20; .* at most 12 \(--total-updates\)"):
        plan_of(resolved({"total_updates": 12, "unroll_length": 20}, "short-windows"), seed=1)


def test_coefficients_beside_the_diagonal():
    assert resolved({}).initial_off_diagonal == 0.075
    diagonal = resolved({"coefficient_form": "diagonal"})
    assert (diagonal.initial_off_diagonal, diagonal.teacher_off_diagonal_lr) == (0.0, 0.0)
    with pytest.raises(OptionError, match="--initial-off-diagonal: 0.1; expected 0 unless --coefficient-form"):
        resolved({"coefficient_form": "diagonal", "initial_off_diagonal": 0.1})
    with pytest.raises(OptionError, match="--teacher-off-diagonal-lr: 0.1; needs --coefficient-form smoothed"):
        resolved({"coefficient_form": "diagonal", "teacher_off_diagonal_lr": 0.1})


def test_one_learning_rate():
    plain = resolved({"teacher_lr": 0.3}, "paper")
    assert (plain.teacher_optimizer, plain.teacher_word_lr, plain.teacher_off_diagonal_lr) == ("plain", 0.3, 0.0)
    assert resolved({"coefficient_form": "smoothed"}, "paper").teacher_off_diagonal_lr == plain.teacher_lr / 30
    parts = resolved({"teacher_word_lr": 0.001}, "paper")
    assert (parts.teacher_optimizer, parts.teacher_word_lr) == ("levels", 0.001)
    with pytest.raises(OptionError, match="--teacher-word-lr: 0.001; needs --teacher-optimizer levels, because plain"):
        resolved({"teacher_word_lr": 0.001, "teacher_optimizer": "plain"})


def test_no_dev_example_is_held_back():
    assert plan_of(resolved({}, "paper"), seed=1).dev_holdout == 0.0
    assert resolved({"holdout_lives": 2}, "paper").dev_holdout == 0.2
    with pytest.raises(OptionError, match="--dev-holdout: 0.0; expected .* so that --holdout-lives 2 has dev examples"):
        plan_of(resolved({"holdout_lives": 2, "dev_holdout": 0.0}, "paper"), seed=1)


def test_what_is_ours_in_the_preset_of_the_paper_is_told():
    told = declared(TranslationOptions)["preset"].option.help
    assert all(flag_of(name) in told for name in OURS_IN_PAPER)
    assert {name for name in declared(TranslationTeaching) if flag_of(name) in told} == set(OURS_IN_PAPER)


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
    windows = PRESETS["short-windows"]
    assert (windows.teacher_keys, windows.initial_coefficient) == (DEFAULT_KEYS, DEFAULT_INITIAL_COEFFICIENT)
    assert ImageTeaching().has_off_diagonal
