"""The 13 features, by hand."""

import pytest
import torch

from fairseq_l2t.classification.state import ClassifierState


def test_features_of_ten_and_of_a_hundred_classes():
    assert len(ClassifierState(10, 100).features) == 13 and len(ClassifierState(100, 100).features) == 103
    assert ClassifierState(3, 100).features[:4] == ("progress", "train_accuracy", "dev_accuracy", "dev_precision_0")


def test_measures_by_hand():
    state = ClassifierState(3, 200)
    assert state.vector(50).tolist() == pytest.approx([0.25, 1 / 3, 1 / 3, 1 / 3, 1 / 3, 1 / 3])
    state.observe_training(2.0, 0.8)
    # Chosen: 0 three times, two of them right; 1 once, wrong; 2 never.
    state.observe_dev(torch.tensor([0, 0, 0, 1]), torch.tensor([0, 0, 1, 2]))
    assert state.vector(100).tolist() == pytest.approx([0.5, 0.95 / 3 + 0.05 * 0.8, 0.5, 2 / 3, 0.0, 0.0])
    assert state.vector(500)[0] == 1.0
    other = ClassifierState(3, 200)
    assert not torch.equal(other.vector(100), state.vector(100))
    other.load_state_dict(state.state_dict())
    assert torch.equal(other.vector(100), state.vector(100))
    state.reset()
    assert not torch.equal(other.vector(100), state.vector(100))


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="classes: 1"):
        ClassifierState(1, 10)
    with pytest.raises(ValueError, match="--total-updates: 0"):
        ClassifierState(2, 0)
    with pytest.raises(ValueError, match="checkpoint"):
        ClassifierState(2, 10).load_state_dict(ClassifierState(3, 10).state_dict())
