"""Measures of a fairseq student on dev pairs: gradients against finite differences, chunks, texts."""

from contextlib import nullcontext

import pytest
import torch

import fairseq_l2t.plugin.student.dev_measures as measures
from fairseq_l2t.core import unroll
from fairseq_l2t.objectives import SentenceBleu, best_inverse_temperature
from fairseq_l2t.testing.hypergradient_check import five_point_slope
from fairseq_l2t.testing.tiny_students import make_student, spread_teacher

TOLERANCE = 1e-6
FAMILIES = ["transformer_tied", "lstm_wiseman", "fconv_iwslt"]


@pytest.fixture(scope="module", params=FAMILIES)
def student(data_bin, request):
    """A float64 student that has moved a little; measures leave it as it is."""
    student = make_student(data_bin, request.param, "adam").double()
    unroll(student, spread_teacher(student), 2)
    return student


def slope_error(student, measure, gradient, h=1e-5):
    """Return the relative error of ``gradient`` along a random direction of omega that it is not orthogonal to."""
    start = student.omega.clone()
    generator = torch.Generator().manual_seed(2)
    direction = torch.randn(len(start), generator=generator, dtype=start.dtype)
    direction = direction / direction.norm() + gradient / gradient.norm()

    def at(distance):
        student.set_omega(start + distance * direction)
        return measure()

    try:
        slope = five_point_slope(at, h)
    finally:
        student.set_omega(start)
    return abs(float(gradient @ direction) - slope) / abs(slope)


def test_likelihood(student):
    value, gradient = student.dev_objective("likelihood")
    assert 0 < value < 1
    assert slope_error(student, lambda: student.dev_objective("likelihood")[0], gradient) < TOLERANCE


def test_inverse_perplexity(student):
    value, gradient = student.dev_objective("inverse-perplexity")
    log_probs, keep = student.dev_measures.reference_log_probs(
        list(student.dev.teaching[: student.options.namespace.dev_batch])
    )
    assert value == pytest.approx(float(log_probs.detach()[keep].mean().exp()), rel=1e-12)
    # A geometric mean is below the arithmetic one.
    assert 0 < value < student.dev_objective("likelihood")[0]
    assert slope_error(student, lambda: student.dev_objective("inverse-perplexity")[0], gradient) < TOLERANCE
    assert slope_error(student, lambda: student.dev_objective("likelihood")[0], gradient) > 100 * TOLERANCE


def test_calibrated_perplexity(student):
    pairs = list(student.dev.teaching[: student.options.namespace.dev_batch])
    value, gradient = student.dev_objective("calibrated-perplexity")

    def at(b):
        log_probs, keep = student.dev_measures.reference_log_probs(pairs, b)
        return float(log_probs.detach()[keep].mean().exp())

    # The best of a grid is no better, and temperature 1 is another one.
    b = best_inverse_temperature(student.dev_measures, pairs)
    assert value == pytest.approx(at(b), rel=1e-12)
    assert all(at(b * factor) < value for factor in (0.9, 0.99, 1.01, 1.1))
    assert student.dev_objective("inverse-perplexity")[0] == pytest.approx(at(1.0), rel=1e-12)
    assert abs(b - 1) > 1e-3
    measure = lambda: student.dev_objective("calibrated-perplexity")[0]  # noqa: E731
    assert slope_error(student, measure, gradient) < TOLERANCE
    _, other = student.dev_objective("inverse-perplexity")
    assert slope_error(student, measure, other) > 100 * TOLERANCE


def test_measures_follow_a_new_life(data_bin):
    student, fresh = make_student(data_bin, "fconv", "adam"), make_student(data_bin, "fconv", "adam", "--seed", "9")
    before, measures_before = student.dev_objective(), student.dev_measures
    student.restart(9)
    pairs = student.dev.teaching[:8]
    value, gradient = student.dev_objective(pairs=pairs)
    expected = fresh.dev_objective(pairs=pairs)
    assert value == expected[0] and torch.equal(gradient, expected[1])
    assert student.dev_measures is not measures_before and student.dev_measures.omega is student.omega
    # The control: it is another model.
    assert value != before[0]


def test_measures_change_nothing_of_the_student(student):
    omega, state = student.omega.clone(), student.state.vector(student.update)
    scores = student.dev_measures.validate(student.dev.holdout)
    student.dev_objective("likelihood")
    assert torch.equal(student.omega, omega) and torch.equal(student.state.vector(student.update), state)
    # The control: observing takes these scores into the state.
    student.observe_dev(student.dev.holdout)
    assert student.state.state_dict()["dev_accuracy"] == scores.accuracy
    assert not torch.equal(student.state.vector(student.update), state)


def test_likelihood_is_measured_without_dropout(student):
    assert student.dev_objective("likelihood")[0] == student.dev_objective("likelihood")[0]
    student.model.train()
    first = student.dev_objective("likelihood")[0]
    assert first == student.dev_objective("likelihood")[0]


def test_gradient_scaling_of_fconv_is_no_part_of_the_measure(data_bin, monkeypatch):
    student = make_student(data_bin, "fconv_iwslt", "adam").double()
    _, gradient = student.dev_objective("likelihood")
    # The control: with the scaling of the updates the same comparison fails.
    monkeypatch.setattr(measures, "outer_gradient", nullcontext)
    _, scaled = student.dev_objective("likelihood")
    measure = lambda: student.dev_objective("likelihood")[0]  # noqa: E731
    assert slope_error(student, measure, gradient) < TOLERANCE
    assert slope_error(student, measure, scaled) > 1e-3


def test_risk(student, monkeypatch):
    # With the draws held fixed it is a smooth function of omega.
    pairs, generator = list(student.dev.teaching[:4]), torch.Generator().manual_seed(0)
    rows = dict(zip(pairs, student.dev_measures.draw(pairs, 4, generator), strict=True))
    # At the start of a life nothing that is drawn is right: the references stand in for a better student.
    for pair in pairs:
        rows[pair] = [*rows[pair][:3], tuple(student.dev.target(pair).tolist())]
    monkeypatch.setattr(student.dev_measures, "draw", lambda chunk, samples, generator: [rows[pair] for pair in chunk])

    def risk():
        return student.dev_objective("expected-bleu", pairs=pairs, samples=4, estimator="risk", alpha=0.01)

    value, gradient = risk()
    assert 0 < value < 1
    assert slope_error(student, lambda: risk()[0], gradient) < TOLERANCE


@pytest.mark.parametrize("estimator", ["reinforce", "risk"])
def test_expected_bleu_of_an_untrained_student(student, estimator):
    found = [student.dev_objective("expected-bleu", samples=3, estimator=estimator, seed=seed) for seed in (0, 0, 1)]
    assert all(0 <= value <= 1 and bool(torch.isfinite(gradient).all()) for value, gradient in found)
    assert found[0][0] == found[1][0] and torch.equal(found[0][1], found[1][1])
    assert not torch.equal(found[0][1], found[2][1])


def test_chunks_do_not_matter(student, monkeypatch):
    pairs = student.dev.teaching[:12]
    value, gradient = student.dev_objective("likelihood", pairs=pairs)
    limit = 60 * student.coefficient_count
    monkeypatch.setattr(measures, "_SCORES_PER_PASS", limit)
    chunks = list(student.dev_measures.dev_chunks(pairs))
    assert len(chunks) > 1 and [pair for chunk in chunks for pair in chunk] == list(pairs)
    again = student.dev_objective("likelihood", pairs=pairs)
    assert again[0] == pytest.approx(value, rel=1e-12)
    torch.testing.assert_close(again[1], gradient, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("estimator", ["reinforce", "risk"])
def test_chunks_of_hypotheses_do_not_matter(student, monkeypatch, estimator):
    pairs = student.dev.teaching[:12]

    def measure(seed):
        return student.dev_objective("expected-bleu", pairs=pairs, samples=4, estimator=estimator, seed=seed)

    value, gradient = measure(0)
    limit = 300 * student.coefficient_count
    monkeypatch.setattr(measures, "_SCORES_PER_PASS", limit)
    drawn = student.dev_measures.draw(pairs, 4, torch.Generator().manual_seed(0))
    chunks = list(student.dev_measures.hypothesis_chunks(drawn))
    assert len(chunks) > 2 and sorted(position for chunk in chunks for position in chunk) == list(range(12))
    again = measure(0)
    assert again[0] == pytest.approx(value, rel=1e-9)
    torch.testing.assert_close(again[1], gradient, rtol=1e-8, atol=1e-14)
    assert not torch.allclose(measure(1)[1], gradient, rtol=1e-3)


def test_a_hypothesis_is_cut_by_its_own_source(student):
    # Not by the longest source of the batch it happens to be drawn in.
    pairs = sorted(student.dev.teaching, key=student.dev.source_length)
    limits = [student.dev_measures.longest_hypothesis(pair) for pair in (pairs[0], pairs[-1])]
    rows = student.dev_measures.draw([pairs[0], pairs[-1]], 30, torch.Generator().manual_seed(0))
    assert limits[0] < limits[1]
    assert [max(len(tokens) for tokens in row) for row in rows] <= limits
    assert max(len(tokens) for tokens in rows[1]) > limits[0]


def test_draws_in_parts(student, monkeypatch):
    pairs = student.dev.teaching[:5]
    monkeypatch.setattr(measures, "_PROBABILITIES_PER_STEP", 2 * 3 * student.coefficient_count)
    generator = torch.Generator().manual_seed(0)
    rows = student.dev_measures.draw(pairs, 3, generator)
    again = torch.Generator().manual_seed(0)
    assert rows == [
        row for part in (pairs[:2], pairs[2:4], pairs[4:]) for row in student.dev_measures.draw(part, 3, again)
    ]
    assert torch.equal(generator.get_state(), again.get_state())
    assert student.dev_measures.draw(pairs, 3, again) != rows


def test_the_reward_is_kept(student):
    assert student.reward() is student.reward()


def test_drawn_hypotheses_keep_the_order_of_the_pairs(student):
    # Collation sorts by length; a drawn row must come back to its pair.
    pairs = sorted(student.dev.teaching[:6], key=student.dev.source_length)
    rows = student.dev_measures.draw(pairs, 2, torch.Generator().manual_seed(0))
    lengths = [student.dev_measures.longest_hypothesis(pair) for pair in pairs]
    assert lengths[0] < lengths[-1]
    owner = [position for position in range(6) for _ in range(2)]
    flat = [tokens for row in rows for tokens in row]
    forward = student.dev_measures.hypothesis_log_probs(pairs, measures.Hypotheses(owner, flat)).detach()
    backward = student.dev_measures.hypothesis_log_probs(
        pairs[::-1], measures.Hypotheses([5 - o for o in owner], flat)
    ).detach()
    torch.testing.assert_close(forward, backward, rtol=1e-10, atol=1e-12)


def test_texts(student):
    reward = SentenceBleu()
    for pair in student.dev.teaching[:5]:
        tokens, text = student.dev.target(pair).tolist(), student.dev_measures.reference_text(pair)
        assert text
        assert student.dev_measures.hypothesis_text(tokens) == text
        assert reward(student.dev_measures.hypothesis_text(tokens), text) == pytest.approx(1.0)
    dictionary = student.task.target_dictionary
    assert student.dev_measures.hypothesis_text((dictionary.eos(),)) == ""
    # an unknown word of a hypothesis never matches an unknown word of a reference
    assert student.dev_measures.hypothesis_text((dictionary.unk(),)) == "UNKNOWNTOKENINHYP"


@pytest.mark.parametrize(
    ("more", "tokenizer"),
    [((), "tok:13a"), (("--eval-tokenized-bleu",), "tok:none"), (("--bleu-tokenizer", "char"), "tok:char")],
)
def test_tokenizer_of_the_reward(data_bin, more, tokenizer):
    subject = make_student(data_bin, "fconv", "nag", "--objective", "expected-bleu", *more)
    assert tokenizer in subject.reward().signature()


def test_unknown_objective(student):
    with pytest.raises(ValueError, match="--objective: bleu; expected one of likelihood, inverse-perp"):
        student.dev_objective("bleu")
    with pytest.raises(ValueError, match="--samples: 1; "):
        student.dev_objective("expected-bleu", samples=1)
