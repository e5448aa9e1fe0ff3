import numpy as np
import pytest
import torch

from fairseq_l2t.core import LossShape, dynamic_loss
from fairseq_l2t.inspection import InspectionError, WordWeights, choose_states, read_dictionary, word_weights
from fairseq_l2t.storage import load_teacher
from tests.inspection.files import write_dictionary, write_teacher


@pytest.fixture
def make(tmp_path):
    teacher_file = load_teacher(write_teacher(tmp_path / "teacher"))
    dictionary = read_dictionary(write_dictionary(tmp_path / "dict"))
    stages = np.array([0.0, 1.0])
    states = choose_states(teacher_file, None).at(stages)
    return lambda **options: word_weights(teacher_file, dictionary, stages, states, **options)


def test_coefficients_of_words(make):
    weights = make()
    assert weights.words == ("</s>", "<unk>", "the", "house", "▁small", "$5", "東京", "rare")
    start, end = weights.coefficients
    np.testing.assert_allclose(start, [0.1, 0.1, 0.1, 0.2, 0.1, 0.1, 0.1, -0.1], rtol=1e-6)
    np.testing.assert_allclose(end, [0.1, 0.1, 0.3, 0.05, 0.1, 0.1, 0.1, -0.1], rtol=1e-6)
    up, down = weights.ranked(weights.change, 3)
    assert [weights.words[index] for index in (up[0], down[0])] == ["the", "house"]


def test_words_below_the_least_count_are_left_out(make):
    assert make(min_count=20).words == ("</s>", "<unk>", "the", "house", "▁small", "$5")
    assert "madeupword0000" in make(min_count=0).words
    with pytest.raises(InspectionError, match="--min-count: 1000"):
        make(min_count=1000)


@pytest.mark.parametrize("mix", [0.0, 0.3])
def test_weight_is_the_pull_relative_to_cross_entropy(mix):
    # d loss / d log p of the loss itself, at log p = 0; that of cross-entropy is -1.
    shape = LossShape(scale=40.0, cross_entropy_mix=mix)
    phi = torch.tensor([0.1, 0.25, -0.05], dtype=torch.float64)
    log_probs = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    keep = torch.ones(3, dtype=torch.bool)
    dynamic_loss(log_probs, torch.arange(3), phi, keep, shape).backward()
    weights = WordWeights(np.zeros(1), ("a", "b", "c"), np.zeros(3), phi.numpy()[None], shape)
    np.testing.assert_allclose(weights.weights[0], -log_probs.grad.numpy(), rtol=1e-12)


def test_equal_weights_stand_in_the_order_of_the_dictionary(make):
    weights = make()
    up, down = weights.ranked(np.zeros(len(weights.words)), 100)
    assert up.tolist() == down.tolist() == [0, 1, 2, 3]


def test_a_smoothing_coefficient_is_no_word(tmp_path):
    dictionary = read_dictionary(write_dictionary(tmp_path / "dict"))
    stages = np.array([0.0, 1.0])
    found = {}
    for form in ("diagonal", "smoothed"):
        file = load_teacher(write_teacher(tmp_path / form, form=form))
        found[form] = word_weights(file, dictionary, stages, choose_states(file, None).at(stages))
    plain, smoothed = found["diagonal"], found["smoothed"]
    assert plain.smoothing is None and plain.smoothing_weights is None
    np.testing.assert_allclose(smoothed.smoothing, [0.02, 0.1], rtol=1e-6)
    np.testing.assert_allclose(smoothed.smoothing_weights, [0.2, 1.0], rtol=1e-6)
    np.testing.assert_array_equal(smoothed.coefficients, plain.coefficients)
    assert smoothed.words == plain.words
