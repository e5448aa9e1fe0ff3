"""Both estimators against the enumerated gradient: every output of up to 3 of 4 symbols, real and random rewards."""

import pytest
import torch

from fairseq_l2t.objectives import ESTIMATORS, SentenceBleu, expected_bleu
from tests.objectives.autoregressive import OUTPUTS, REFERENCES, AutoregressiveStudent
from tests.objectives.convergence import outside, shrinkage

PAIRS = list(range(len(REFERENCES)))
SAMPLES = 4
REPETITIONS = 2048


def random_reward():
    """Return a reward in [0, 1] without structure: one random number for each pair of texts."""
    generator, known = torch.Generator().manual_seed(8), {}

    def reward(hypothesis, reference):
        return known.setdefault((hypothesis, reference), float(torch.rand((), generator=generator)))

    return reward


@pytest.fixture(params=["bleu", "random"])
def reward(request):
    return SentenceBleu() if request.param == "bleu" else random_reward()


def measured(student, reward, estimator, samples=SAMPLES, seed=0, **more):
    generator = torch.Generator().manual_seed(seed)
    return expected_bleu(
        student, PAIRS, reward=reward, samples=samples, estimator=estimator, generator=generator, **more
    )


def enumerated(student, reward):
    """Return the expected reward and its gradient (n,): the sum over all outputs, by autograd."""
    rewards = torch.tensor(
        [[reward(student.hypothesis_text(tokens), reference) for tokens in OUTPUTS] for reference in REFERENCES],
        dtype=torch.float64,
    )
    value = (student.every_log_prob().exp() * rewards).sum(1).mean()
    return value.detach(), student.parameters.gather(torch.autograd.grad(value, student.parameters.parameters))


def repeated(student, reward, estimator, repetitions=REPETITIONS):
    """Return values (k, 1) and gradients (k, n) of independent estimates."""
    found = [measured(student, reward, estimator, seed=seed) for seed in range(repetitions)]
    values = torch.tensor([[one.value] for one in found], dtype=torch.float64)
    return values, torch.stack([one.gradient for one in found])


def test_the_enumeration_is_complete():
    student = AutoregressiveStudent()
    assert len(OUTPUTS) == len(set(OUTPUTS)) == 1 + 3 + 9 + 27
    torch.testing.assert_close(
        student.every_log_prob().exp().sum(1), torch.ones(len(PAIRS), dtype=torch.float64), rtol=0, atol=1e-14
    )
    # rewards differ between outputs, so that the gradient is not 0
    rewards = [SentenceBleu()(student.hypothesis_text(tokens), REFERENCES[0]) for tokens in OUTPUTS]
    assert len(set(rewards)) > 5 and max(rewards) == 1 and min(rewards) == 0


def test_reinforce_converges_to_the_enumerated_gradient(reward):
    student = AutoregressiveStudent()
    value, gradient = enumerated(student, reward)
    values, gradients = repeated(student, reward, "reinforce")
    ratio = shrinkage(gradients, gradient, 16, 256)
    print(f"gradient {outside(gradients, gradient):.2f} half widths away; error shrinks {ratio:.2f} (4)")
    assert outside(gradients, gradient) < 1
    assert outside(values, value.view(1)) < 1
    assert 3 < ratio < 5.3
    # the controls: the gradient with a baseline that contains the sample itself, and one that is too large
    assert outside(gradients, (SAMPLES - 1) / SAMPLES * gradient) > 2
    assert outside(gradients, 1.5 * gradient) > 2
    assert outside(values, 1.05 * value.view(1)) > 2


def test_risk_of_few_samples_is_biased(reward):
    # The control of the method: an estimator that does not converge is detected.
    student = AutoregressiveStudent()
    _, gradient = enumerated(student, reward)
    _, gradients = repeated(student, reward, "risk", REPETITIONS // 2)
    print(f"{outside(gradients, gradient):.2f} half widths away")
    assert outside(gradients, gradient) > 2
    assert shrinkage(gradients, gradient, 16, 256) < 3


def test_risk_of_every_output_is_the_enumerated_gradient(reward, monkeypatch):
    student = AutoregressiveStudent()
    value, gradient = enumerated(student, reward)
    monkeypatch.setattr(student, "draw", lambda pairs, samples, generator: [OUTPUTS for _ in pairs])
    ours = measured(student, reward, "risk")
    error = float((ours.gradient - gradient).norm() / gradient.norm())
    print(f"relative error {error:.1e}")
    assert error < 1e-6
    assert ours.value == pytest.approx(float(value), rel=1e-6)
    # the controls: another sharpness, and one output missing
    sharper = measured(student, reward, "risk", alpha=2.0)
    assert (sharper.gradient - gradient).norm() > 1e-2 * gradient.norm()
    monkeypatch.setattr(student, "draw", lambda pairs, samples, generator: [OUTPUTS[:-1] for _ in pairs])
    assert (measured(student, reward, "risk").gradient - gradient).norm() > 1e-5 * gradient.norm()


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("constant", [0.0, 0.1, 1 / 3, 1.0])
def test_equal_rewards_give_exactly_0(estimator, constant):
    student = AutoregressiveStudent()
    for samples in (2, 7, 50):
        ours = measured(student, lambda hypothesis, reference: constant, estimator, samples)
        assert torch.count_nonzero(ours.gradient) == 0
        assert ours.value == pytest.approx(constant, abs=1e-15)
    # the control: one text with a slightly larger reward
    other = measured(student, lambda hypothesis, reference: constant + (hypothesis == "a") * 1e-9, estimator, 50)
    assert torch.count_nonzero(other.gradient) > 0
