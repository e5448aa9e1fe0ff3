"""Sentences of one token and at the length limit under extreme coefficients: fairseq students, float32 and float64."""

import pytest
import torch

from fairseq_l2t.core import hypergradient, student_gradient, unroll
from fairseq_l2t.testing.tiny_students import make_student, spread_teacher
from tests.plugin.student.few_words import binarise

OPTIMIZER_OF = {"transformer_tied": "adam", "lstm": "momentum", "fconv": "nag"}
LONGEST = 6
"""Tokens of the longest sentences a student takes, the end included."""

TOLERANCE = 1e-5
FLOOR = 1e-6
"""Norm of a gradient per token that counts for nothing; plain cross-entropy's are longer than 0.1 here. Below it the
sigmoid of a large Phi log p is so small that rounding of log p alone, times Phi, is more than the tolerance."""

LONG_SOURCE, LONG_TARGET = "a b c d e", "v w x y z"
TRAIN = [
    *(("", ""), ("", "x"), ("a", ""), ("a", "x")),
    *((LONG_SOURCE, LONG_TARGET), (LONG_SOURCE, "z y x w v"), (LONG_SOURCE, ""), ("", LONG_TARGET)),
    *(("b c", "y z"), ("c d a", "w"), ("e", "v x")),
]
TOO_LONG = [(f"{LONG_SOURCE} a", "x"), ("a", f"{LONG_TARGET} x")]
SENTENCES = {
    "nothing at all": [0],
    "empty target": [0, 2, 6],
    "empty source": [0, 1, 7],
    "one word": [3],
    "at the limit": [4, 5],
    "all": list(range(len(TRAIN))),
}
VALID = [("", "y"), ("b", ""), ("e d c b a", "x y z v w"), ("a e", "z x"), ("d", "w v")]
COEFFICIENTS = ["0", "50", "-50", "every kind"]


@pytest.fixture(scope="module")
def few_words(tmp_path_factory):
    return binarise(tmp_path_factory.mktemp("few_words"), TRAIN + TOO_LONG, VALID)


def plain_student(data, family, *more):
    """Return a student at the beginning of its life, without dropout, whose length limit is `LONGEST`."""
    # Of the positions it is given, fconv uses two less.
    limit = str(LONGEST + 2 if family == "fconv" else LONGEST)
    options = ["--max-source-positions", limit, "--max-target-positions", limit, "--dropout", "0"]
    options += ["--dev-holdout", "0.2", "--cross-entropy-updates", "0", *more]
    return make_student(data, family, OPTIMIZER_OF[family], *options)


@pytest.fixture(scope="module", params=OPTIMIZER_OF)
def students(few_words, request):
    """The same student in float32 and float64; tests set the parameters."""
    # A share of cross-entropy shows what float32 makes of the sum where the other share is saturated.
    more = ["--cross-entropy-mix", "0.3"] if request.param == "lstm" else []
    return plain_student(few_words, request.param, *more), plain_student(few_words, request.param, *more).double()


def spread_out(students):
    """Give both the same parameters, with predictions from hopeless to nearly sure."""
    narrow, wide = students
    narrow.restart(3)
    noise = torch.randn(narrow.omega.shape, generator=torch.Generator().manual_seed(0))
    narrow.set_omega(narrow.omega + 0.6 * noise)
    wide.set_omega(narrow.omega.double())
    return narrow, wide


def coefficients_of(student, name):
    """Return float32 coefficients (entries,)."""
    count = student.coefficient_count
    if name == "every kind":
        return torch.tensor([0.0, 50.0, -50.0, 0.1, 1.0]).repeat(count)[:count]
    return torch.full((count,), float(name))


def loss_and_gradient(student, batch, coefficients):
    """Return the loss (1,) and the gradient (n,) of a batch, each per target token, in float64."""
    coefficients = coefficients.to(student.omega)
    (loss,) = student.losses(batch, coefficients, measure=False)
    gradient = student_gradient(student, batch, coefficients, update=0)
    return (loss.total.detach() / loss.tokens).double().view(1), gradient.double()


def is_equal(found, expected):
    return float((found - expected).norm()) <= max(TOLERANCE * float(expected.norm()), FLOOR)


@pytest.mark.parametrize("sentences", SENTENCES)
def test_float32_is_float64(students, sentences):
    narrow, wide = spread_out(students)
    dataset = narrow.task.dataset("train")
    batch = [dataset.collater([dataset[number] for number in SENTENCES[sentences]])]
    lengths = {"one word": 2, "at the limit": LONGEST, "empty target": 1}
    assert batch[0]["target"].shape[1] == lengths.get(sentences, batch[0]["target"].shape[1])
    gradients = {}
    for name in COEFFICIENTS:
        coefficients = coefficients_of(narrow, name)
        found, expected = (loss_and_gradient(student, batch, coefficients) for student in (narrow, wide))
        assert all(bool(torch.isfinite(part).all()) for part in (*found, *expected))
        assert all(map(is_equal, found, expected)), name
        gradients[name] = expected[1]
    mild = loss_and_gradient(wide, batch, torch.full((narrow.coefficient_count,), 0.1))[1]
    slightly_off = loss_and_gradient(wide, batch, torch.full((narrow.coefficient_count,), 0.101))[1]
    # The controls: a coefficient that is 1 % off is noticed, and an extreme one is another loss.
    assert not is_equal(slightly_off, mild)
    assert not any(is_equal(gradient, mild) for gradient in gradients.values())


def test_sentences_up_to_the_limit_are_trained_on(students):
    # Longer ones are left out, with fairseq's own warning: the limit is what the tests call it.
    student, _ = students
    student.restart(3)
    used = sorted(number for sample in student.next_batch() for number in sample["id"].tolist())
    assert used == list(range(len(TRAIN)))
    assert sorted(student.dev.teaching + student.dev.holdout) == list(range(len(VALID)))


def extreme_teacher(student, name):
    """Return a teacher whose coefficients are of that kind, and differ a little between keys."""
    teacher = spread_teacher(student)
    with torch.no_grad():
        apart = torch.linspace(0.9, 1.1, teacher.keys)
        teacher.values.copy_(coefficients_of(student, name).unsqueeze(1) * apart)
    return teacher


@pytest.mark.parametrize("name", COEFFICIENTS)
def test_hypergradient_is_finite(students, name):
    student, _ = students
    student.restart(3)
    trajectory = unroll(student, extreme_teacher(student, name), 2)
    assert all(len(step.batch) == 2 for step in trajectory.steps)  # every sentence there is, twice
    measured = [student.dev_objective(objective) for objective in ("likelihood", "expected-bleu")]
    assert all(0 <= value <= 1 and bool(torch.isfinite(gradient).all()) for value, gradient in measured)
    found = hypergradient(trajectory, measured[0][1])
    assert all(bool(torch.isfinite(part).all()) for part in (student.omega, *student.buffers, *found.values()))
    # The control: at the start of a life no word is sure, so that only 50 and -50 alone leave nothing to learn from.
    assert (float(found["values"].norm()) > 1e-9) == (name in ("0", "every kind"))
