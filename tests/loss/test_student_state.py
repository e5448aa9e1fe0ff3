"""The state of a student: bounds, names, running measures, invalid arguments."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fairseq_l2t.core import StudentState
from fairseq_l2t.loss.student_state import require_same_features

NUMBERS = st.floats(allow_nan=True, allow_infinity=True)


@settings(derandomize=True, deadline=None, database=None)
@given(
    entries=st.integers(2, 10**6),
    total=st.integers(1, 10**6),
    update=st.integers(0, 2 * 10**6),
    training=st.lists(st.tuples(NUMBERS, NUMBERS), max_size=5),
    dev=st.lists(st.tuples(NUMBERS, NUMBERS, st.none() | NUMBERS), max_size=3),
    with_bleu=st.booleans(),
)
def test_every_feature_is_in_the_unit_interval(entries, total, update, training, dev, with_bleu):
    state = StudentState(entries, total, with_bleu=with_bleu)
    for loss, accuracy in training:
        state.observe_training(loss, accuracy)
    for loss, accuracy, bleu in dev:
        state.observe_dev(loss, accuracy, bleu)
    vector = state.vector(update)
    assert vector.shape == (len(state.features),)
    assert vector.dtype == torch.float64
    assert bool(((vector >= 0) & (vector <= 1)).all())


def named(state: StudentState, update: int = 0) -> dict[str, float]:
    """Return the features by name."""
    return dict(zip(state.features, state.vector(update).tolist(), strict=True))


def test_names():
    base = ("progress", "train_accuracy", "train_loss", "dev_accuracy", "dev_loss")
    assert StudentState(10, 5).features == base
    assert StudentState(10, 5, with_bleu=True).features == (*base, "dev_bleu")


def test_start_is_chance_level():
    found = named(StudentState(10, 5, with_bleu=True))
    chance = {"train_accuracy": 0.1, "dev_accuracy": 0.1, "dev_bleu": 0.1}
    assert found == {"progress": 0.0, "train_loss": 1.0, "dev_loss": 1.0, **chance}


@pytest.mark.parametrize(("update", "progress"), [(0, 0.0), (1, 0.25), (3, 0.75), (4, 1.0), (9, 1.0)])
def test_progress(update, progress):
    assert named(StudentState(10, 4), update)["progress"] == progress


def test_running_training_measures():
    state = StudentState(10, 4)
    state.observe_training(0.5 * math.log(10), 0.6)
    assert named(state)["train_loss"] == pytest.approx(0.95 + 0.05 * 0.5)
    assert named(state)["train_accuracy"] == pytest.approx(0.95 * 0.1 + 0.05 * 0.6)
    for _ in range(500):
        state.observe_training(0.5 * math.log(10), 0.6)
    assert named(state)["train_loss"] == pytest.approx(0.5)
    assert named(state)["train_accuracy"] == pytest.approx(0.6)


def test_dev_measures_are_the_newest():
    state = StudentState(10, 4, with_bleu=True)
    for share in (0.9, 0.3):
        state.observe_dev(share * math.log(10), 1 - share, bleu=100 * share)
    assert named(state)["dev_loss"] == pytest.approx(0.3)
    assert named(state)["dev_accuracy"] == pytest.approx(0.7)
    assert named(state)["dev_bleu"] == pytest.approx(0.3)


def test_bleu_is_kept_between_measurements_and_never_zero():
    state = StudentState(10, 4, with_bleu=True)
    state.observe_dev(1.0, 0.5, bleu=42.0)
    state.observe_dev(1.0, 0.5)
    assert named(state)["dev_bleu"] == pytest.approx(0.42)
    state.observe_dev(1.0, 0.5, bleu=0.0)  # an exact zero would give a column of V no hypergradient
    assert named(state)["dev_bleu"] == pytest.approx(0.1)
    plain = StudentState(10, 4)
    plain.observe_dev(1.0, 0.5, bleu=42.0)
    assert "dev_bleu" not in named(plain)


@pytest.mark.parametrize("loss", [math.nan, math.inf, 1e30])
def test_a_loss_of_nan_counts_as_the_worst(loss):
    state = StudentState(10, 4)
    state.observe_dev(0.0, 0.5)
    assert named(state)["dev_loss"] == 0.0
    state.observe_dev(loss, 0.5)
    assert named(state)["dev_loss"] == 1.0
    state.observe_training(loss, 0.5)
    assert named(state)["train_loss"] == 1.0


def test_reset():
    state, fresh = StudentState(10, 4, with_bleu=True), StudentState(10, 4, with_bleu=True)
    state.observe_training(0.1, 0.9)
    state.observe_dev(0.1, 0.9, 30.0)
    assert not torch.equal(state.vector(0), fresh.vector(0))
    state.reset()
    assert torch.equal(state.vector(0), fresh.vector(0))


def test_round_trip():
    state, other = StudentState(10, 4, with_bleu=True), StudentState(10, 4, with_bleu=True)
    state.observe_training(0.1, 0.9)
    state.observe_dev(0.2, 0.8, 30.0)
    other.load_state_dict(state.state_dict())
    assert torch.equal(other.vector(2), state.vector(2))
    # the checkpoint is a copy: later changes of the state do not reach it
    saved = state.state_dict()
    state.observe_training(0.0, 1.0)
    assert saved == other.state_dict()
    assert saved != state.state_dict()


def test_mismatch_names_both_lists():
    with_bleu = StudentState(10, 4, with_bleu=True)
    with pytest.raises(ValueError, match="student features of the checkpoint: .*this student has .*dev_bleu"):
        with_bleu.load_state_dict(StudentState(10, 4).state_dict())
    with pytest.raises(ValueError, match=r"of the teacher file: \['b', 'a'\]; this student has \['a', 'b'\]"):
        require_same_features(["b", "a"], ["a", "b"], "teacher file")
    require_same_features(("a", "b"), ["a", "b"], "teacher file")


@pytest.mark.parametrize(
    ("entries", "total", "message"),
    [(1, 5, "entries: 1; expected at least 2"), (5, 0, "--total-updates: 0; expected at least 1")],
)
def test_invalid_arguments(entries, total, message):
    with pytest.raises(ValueError, match=message):
        StudentState(entries, total)
