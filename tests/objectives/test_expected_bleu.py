"""Both estimators of expected sentence BLEU against closed forms on a student with a finite list of hypotheses."""

import pytest
import torch

from fairseq_l2t.objectives import ESTIMATORS, SentenceBleu, expected_bleu, expected_token_accuracy
from tests.objectives.enumerable import SENTENCES, EnumerableStudent

PAIRS = [0, 1, 2]
REWARDS = {"": 0.0, "a": 0.3, "b": 0.2, "a b": 1.0, "b a": 0.55}


def reward(hypothesis, reference):
    return REWARDS[hypothesis]


def measured(student, estimator, samples=4, seed=0, reward=reward, **more):
    generator = torch.Generator().manual_seed(seed)
    return expected_bleu(
        student, PAIRS, reward=reward, samples=samples, estimator=estimator, generator=generator, **more
    )


def gradient_of(student, scalar):
    return student.parameters.gather(torch.autograd.grad(scalar, student.parameters.parameters, allow_unused=True))


def exact(student):
    """Return the expected reward and its gradient by the sum over all sentences."""
    rewards = torch.tensor([REWARDS[student.hypothesis_text(tokens)] for tokens in SENTENCES], dtype=torch.float64)
    value = (student.log_probs().exp() @ rewards).mean()
    return float(value.detach()), gradient_of(student, value)


def test_reinforce_is_unbiased():
    student, repetitions = EnumerableStudent(), 4000
    value, gradient = exact(student)
    found = [measured(student, "reinforce", samples=3, seed=seed) for seed in range(repetitions)]
    values = torch.tensor([one.value for one in found], dtype=torch.float64)
    gradients = torch.stack([one.gradient for one in found])
    # 4.5 standard errors in each of 16 numbers: one false alarm in 10,000 seeds, and the seed is fixed
    assert abs(float(values.mean()) - value) < 4.5 * float(values.std()) / repetitions**0.5
    errors = gradients.std(0) / repetitions**0.5
    assert bool(((gradients.mean(0) - gradient).abs() <= 4.5 * errors + 1e-15).all())
    # the control: the errors are small enough to distinguish the gradient from zero and from twice itself
    assert bool((gradient.abs() > 9 * errors).any())


def test_reinforce_equals_its_formula():
    student = EnumerableStudent()
    ours = measured(student, "reinforce", samples=4, seed=1)
    generator, total, value = torch.Generator().manual_seed(1), 0.0, 0.0
    for pair, row in zip(PAIRS, student.draw(PAIRS, 4, generator), strict=True):
        rewards = [REWARDS[student.hypothesis_text(tokens)] for tokens in row]
        value += sum(rewards) / 4
        for k, tokens in enumerate(row):
            baseline = (sum(rewards) - rewards[k]) / 3
            total = total + (rewards[k] - baseline) * student.log_probs()[pair, SENTENCES.index(tokens)] / 4
    torch.testing.assert_close(ours.gradient, gradient_of(student, total / 3), rtol=1e-12, atol=1e-15)
    assert ours.value == pytest.approx(value / 3, rel=1e-12)


@pytest.mark.parametrize("alpha", [1.0, 0.3])
def test_risk_equals_its_formula(alpha):
    student = EnumerableStudent()
    ours = measured(student, "risk", samples=4, seed=1, alpha=alpha)
    generator, total = torch.Generator().manual_seed(1), 0.0
    for pair, row in zip(PAIRS, student.draw(PAIRS, 4, generator), strict=True):
        kept = sorted(set(row))
        weights = (alpha * student.log_probs()[pair, [SENTENCES.index(tokens) for tokens in kept]]).softmax(0)
        total = total + sum(w * REWARDS[student.hypothesis_text(t)] for w, t in zip(weights, kept, strict=True))
    torch.testing.assert_close(ours.gradient, gradient_of(student, total / 3), rtol=1e-12, atol=1e-15)
    assert ours.value == pytest.approx(float(total.detach()) / 3, rel=1e-12)
    control = measured(student, "risk", samples=4, seed=1, alpha=2 * alpha)
    assert (control.gradient - ours.gradient).abs().max() > 1e-3


def test_risk_of_every_sentence_is_exact():
    # With so many samples every sentence is among them, and Q equals p.
    student = EnumerableStudent()
    ours = measured(student, "risk", samples=3000)
    value, gradient = exact(student)
    assert ours.value == pytest.approx(value, rel=1e-12)
    torch.testing.assert_close(ours.gradient, gradient, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_equal_rewards_give_no_gradient(estimator):
    student = EnumerableStudent()
    for constant in (0.0, 1.0, 0.1, 1 / 3):
        ours = measured(student, estimator, samples=7, reward=lambda hypothesis, reference, value=constant: value)
        assert torch.count_nonzero(ours.gradient) == 0
        assert ours.value == pytest.approx(constant, abs=1e-15)
    assert torch.count_nonzero(measured(student, estimator).gradient) > 0


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_equal_hypotheses_give_no_gradient(estimator):
    student = EnumerableStudent()
    with torch.no_grad():
        student.omega[:15] = torch.tensor([-800.0, -800, -800, 0, -800]).repeat(3)
    ours = measured(student, estimator)
    assert torch.count_nonzero(ours.gradient) == 0
    assert ours.value == 1.0


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_seeds(estimator):
    student = EnumerableStudent()
    first, second, other = (measured(student, estimator, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(first.gradient, second.gradient) and first.value == second.value
    assert not torch.equal(first.gradient, other.gradient)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_no_hypothesis_is_scored_twice(estimator):
    student, scored = EnumerableStudent(), []

    def counted(hypothesis, reference):
        scored.append(hypothesis)
        return reward(hypothesis, reference)

    measured(student, estimator, samples=50, reward=counted)
    drawn = student.draw(PAIRS, 50, torch.Generator().manual_seed(0))
    assert len(scored) == sum(len(set(row)) for row in drawn)
    assert len(scored) < 50  # the control: 150 were sampled


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_chunks_have_no_effect(estimator):
    alone, together = (measured(EnumerableStudent(at_once=n), estimator) for n in (1, 3))
    torch.testing.assert_close(alone.gradient, together.gradient, rtol=1e-12, atol=1e-15)
    assert alone.value == pytest.approx(together.value, rel=1e-12)
    assert (measured(EnumerableStudent(), estimator, seed=1).gradient - alone.gradient).abs().max() > 1e-3


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_sentence_bleu_as_reward(estimator):
    ours = measured(EnumerableStudent(), estimator, samples=16, reward=SentenceBleu())
    assert 0 < ours.value < 1
    assert bool(torch.isfinite(ours.gradient).all())


def test_invalid_arguments_are_refused():
    student = EnumerableStudent()
    for samples in (1, 0, -3):
        with pytest.raises(ValueError, match=f"--samples: {samples}; reinforce needs at least 2"):
            measured(student, "reinforce", samples=samples)
    with pytest.raises(ValueError, match="--estimator: exact; expected one of reinforce, risk"):
        measured(student, "exact")
    generator = torch.Generator()
    with pytest.raises(ValueError, match="at least one dev pair"):
        expected_bleu(student, [], reward=reward, samples=2, estimator="risk", generator=generator)
    with pytest.raises(ValueError, match="at least one dev pair"):
        expected_token_accuracy(student, [])


def test_expected_token_accuracy():
    student = EnumerableStudent()
    ours = expected_token_accuracy(student, PAIRS)
    probs = student.log_probs().exp()
    value = (probs[0, :2].sum() + probs[1, 0] + probs[2, :2].sum()) / 5
    assert ours.value == pytest.approx(float(value.detach()), rel=1e-12)
    torch.testing.assert_close(ours.gradient, gradient_of(student, value), rtol=1e-12, atol=1e-15)
