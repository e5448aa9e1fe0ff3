"""Both estimators on fairseq students whose every hypothesis can be listed, against the enumerated gradient."""

import functools

import pytest
import torch

from fairseq_l2t.kernels.twice_differentiable import outer_gradient
from fairseq_l2t.objectives import Hypotheses
from fairseq_l2t.testing.tiny_students import make_student
from tests.objectives.autoregressive import every_output
from tests.objectives.convergence import outside, shrinkage
from tests.plugin.student.few_words import binarise

LONGEST = 3
SAMPLES = 16
REPETITIONS = 128
TRAIN = [("x y", "a b"), ("z", "b"), ("y z x", "b a b"), ("x x", "a a")]
VALID = [("x", "a b"), ("y x z", "b a"), ("z y", "b"), ("x y z", "a a b"), ("z z", "b b")]
FAMILIES = ["transformer_tied", "lstm"]
LIMITS = ["--max-target-positions", str(LONGEST + 1), "--dev-holdout", "0.2"]
SHALLOW = ["--encoder-layers", "1", "--decoder-layers", "1"]


@pytest.fixture(scope="module")
def few_words(tmp_path_factory):
    return binarise(tmp_path_factory.mktemp("few_words"), TRAIN, VALID)


@pytest.fixture(scope="module", params=FAMILIES)
def student(few_words, request):
    """A float64 student far from uniform, so that rewards and probabilities differ between hypotheses."""
    student = make_student(few_words, request.param, "adam", *LIMITS, *SHALLOW).double()
    noise = torch.randn(student.omega.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    student.set_omega(student.omega + 0.3 * noise)
    # Thousands of times the same 85 texts: looking up fairseq's options takes longer than the model.
    student.dev_measures.hypothesis_text = functools.lru_cache(student.dev_measures.hypothesis_text)
    return student


@pytest.fixture(params=["bleu", "random"])
def reward(student, request, monkeypatch):
    """The student's own reward, or one that knows no order among hypotheses."""
    if request.param == "bleu":
        bleu = functools.cache(student.reward())  # hundreds of times the same 85 texts
        monkeypatch.setattr(student.dev_measures, "reward", bleu)
        return bleu
    generator, known = torch.Generator().manual_seed(8), {}

    def random(hypothesis, reference):
        return known.setdefault((hypothesis, reference), float(torch.rand((), generator=generator)))

    monkeypatch.setattr(student.dev_measures, "reward", random)
    return random


def outputs_of(student):
    """Return every hypothesis: any symbol but padding can be drawn, until the end symbol or the length limit."""
    dictionary = student.task.target_dictionary
    others = [symbol for symbol in range(len(dictionary)) if symbol not in (dictionary.eos(), dictionary.pad())]
    return every_output(others, dictionary.eos(), LONGEST)


def probabilities(student, pair, outputs):
    """Return p (outputs,) of one pair, by the model's own forward pass over its source repeated, nothing padded."""
    dictionary, model = student.task.target_dictionary, student.model.eval()
    end, padding = dictionary.eos(), dictionary.pad()
    width = len(max(outputs, key=len))
    # An end in place of padding: what comes after a hypothesis does not reach back into its probabilities.
    tokens = torch.tensor([[*output, *[end] * (width - len(output))] for output in outputs])
    counts = torch.tensor([[place < len(output) for place in range(width)] for output in outputs])
    source = student.dev.sample([pair])["net_input"]["src_tokens"].repeat(len(outputs), 1)
    before = torch.cat([torch.full_like(tokens[:, :1], end), tokens[:, :-1]], dim=1)
    with student.precision():
        output = model(source, torch.full((len(outputs),), source.shape[1]), before)
        probs = model.get_normalized_probs(output, log_probs=False)
    drawable = probs / (1 - probs[..., padding : padding + 1])
    return drawable.gather(-1, tokens.unsqueeze(-1)).squeeze(-1).masked_fill(~counts, 1.0).prod(1)


def enumerated(student, reward):
    """Return the expected reward of the teaching pairs and its gradient (n,): the sum over all outputs, by autograd."""
    outputs, total = outputs_of(student), 0.0
    with student.second_derivatives(), outer_gradient():
        for pair in student.dev.teaching:
            texts = [student.dev_measures.hypothesis_text(output) for output in outputs]
            rewards = torch.tensor(
                [reward(text, student.dev_measures.reference_text(pair)) for text in texts], dtype=torch.float64
            )
            total = total + probabilities(student, pair, outputs) @ rewards
        value = total / len(student.dev.teaching)
        parts = torch.autograd.grad(value, student.parameters.parameters, allow_unused=True)
    return value.detach(), student.parameters.gather(parts)


def estimated(student, estimator, **more):
    return student.dev_objective("expected-bleu", pairs=student.dev.teaching, estimator=estimator, **more)


def draw_everything(student, monkeypatch, outputs):
    monkeypatch.setattr(student.dev_measures, "draw", lambda pairs, samples, generator: [outputs for _ in pairs])


def test_the_enumeration_is_complete(student):
    outputs = outputs_of(student)
    drawable = len(student.task.target_dictionary) - 2  # without padding and end
    assert drawable == 4  # the words a and b, and fairseq's own <s> and <unk>
    assert len(set(outputs)) == sum(drawable**length for length in range(LONGEST + 1))
    assert {student.dev_measures.longest_hypothesis(pair) for pair in student.dev.teaching} == {LONGEST}
    for position, pair in enumerate(student.dev.teaching):
        plain = probabilities(student, pair, outputs).detach()
        assert float(plain.sum()) == pytest.approx(1, abs=1e-10)
        listed = Hypotheses([position] * len(outputs), outputs)
        ours = student.dev_measures.hypothesis_log_probs(student.dev.teaching, listed).detach().exp()
        assert float(ours.sum()) == pytest.approx(1, abs=1e-10)
        torch.testing.assert_close(ours, plain, rtol=1e-10, atol=1e-15)
    # the control: one that can be drawn left out
    assert float(plain[:-1].sum()) < 1 - 1e-7


def test_reinforce_converges_to_the_enumerated_gradient(student, reward):
    value, gradient = enumerated(student, reward)
    found = [estimated(student, "reinforce", samples=SAMPLES, seed=seed) for seed in range(REPETITIONS)]
    values = torch.tensor([[one[0]] for one in found], dtype=torch.float64)
    gradients = torch.stack([one[1] for one in found])
    ratio = shrinkage(gradients, gradient, 2, 32)
    print(f"gradient {outside(gradients, gradient):.2f} half widths away; error shrinks {ratio:.2f} (4)")
    assert outside(gradients, gradient) < 1
    assert outside(values, value.view(1)) < 1
    assert 2.8 < ratio < 5.7
    # the controls: half the gradient, as a baseline of two samples that contains the sample itself would give, and
    # one that is too large
    assert outside(gradients, 0.5 * gradient) > 2
    assert outside(gradients, 1.5 * gradient) > 2
    assert outside(values, 1.3 * value.view(1)) > 1.5


def test_risk_of_every_output_is_the_enumerated_gradient(student, reward, monkeypatch):
    value, gradient = enumerated(student, reward)
    draw_everything(student, monkeypatch, outputs_of(student))
    found = estimated(student, "risk")
    error = float((found[1] - gradient).norm() / gradient.norm())
    print(f"relative error {error:.1e}")
    assert error < 1e-6
    assert found[0] == pytest.approx(float(value), rel=1e-6)
    # the control: another sharpness
    _, sharper = estimated(student, "risk", alpha=2.0)
    assert (sharper - gradient).norm() > 1e-2 * gradient.norm()


@pytest.mark.parametrize("estimator", ["reinforce", "risk"])
def test_equal_rewards_give_exactly_nothing(student, estimator, monkeypatch):
    for constant in (0.0, 0.1, 1 / 3, 1.0):
        monkeypatch.setattr(student.dev_measures, "reward", lambda hypothesis, reference, value=constant: value)
        value, gradient = estimated(student, estimator, samples=7)
        assert torch.count_nonzero(gradient) == 0
        assert value == pytest.approx(constant, abs=1e-15)
    # the control: rewards that differ
    monkeypatch.setattr(student.dev_measures, "reward", lambda hypothesis, reference: float(len(hypothesis)) / 99)
    assert torch.count_nonzero(estimated(student, estimator, samples=7)[1]) > 0
