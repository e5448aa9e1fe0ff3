"""The teacher network: its formula, its initial values, and a hypergradient for every parameter."""

import math

import pytest
import torch

from fairseq_l2t.core import Teacher, hypergradient, unroll
from fairseq_l2t.loss.teacher import DEFAULT_INITIAL_COEFFICIENT
from fairseq_l2t.testing.hypergradient_check import dev_gradient
from fairseq_l2t.testing.toy_student import UNSEEN, WORDS, ToyStudent
from fairseq_l2t.unroll.update_rules import SGD, Adam

FEATURES = ("progress", "train_loss", "dev_loss")


def by_hand(teacher: Teacher, state: list[float]) -> list[float]:
    """Return W softmax(V s) in plain Python."""
    weights, queries = teacher.values.tolist(), teacher.queries.tolist()
    powers = [math.exp(sum(q * s for q, s in zip(row, state, strict=True))) for row in queries]
    shares = [power / sum(powers) for power in powers]
    return [sum(w * share for w, share in zip(row, shares, strict=True)) for row in weights]


@pytest.mark.parametrize("keys", [1, 2, 5])
@pytest.mark.parametrize("state", [[0.0, 0.5, 1.0], [1.0, 1.0, 1.0], [0.0, 0.0, 0.0]])
def test_closed_form(keys, state):
    teacher = Teacher(FEATURES, 4, keys=keys).double()
    with torch.no_grad():  # initially all rows of W are equal
        teacher.values.add_(torch.arange(4.0 * keys).view(4, keys))
    coefficients = teacher(torch.tensor(state, dtype=torch.float64))
    assert coefficients.shape == (4,)
    torch.testing.assert_close(coefficients.tolist(), by_hand(teacher, state), rtol=1e-13, atol=0)


def test_a_worked_example():
    teacher = Teacher(("progress",), 2, keys=2)
    with torch.no_grad():
        teacher.values.copy_(torch.tensor([[1.0, 5.0], [0.0, 2.0]]))
        teacher.queries.copy_(torch.tensor([[0.0], [math.log(3)]]))
    # softmax(0, log 3) = (1/4, 3/4) at progress 1, (1/2, 1/2) at progress 0
    torch.testing.assert_close(teacher(torch.tensor([1.0])), torch.tensor([4.0, 1.5]))
    torch.testing.assert_close(teacher(torch.tensor([0.0])), torch.tensor([3.0, 1.0]))


def test_sizes_and_names():
    teacher = Teacher(FEATURES, 7, keys=4)
    assert (teacher.features, teacher.entries, teacher.keys) == (FEATURES, 7, 4)
    shapes = {name: tuple(parameter.shape) for name, parameter in teacher.named_parameters()}
    assert shapes == {"values": (7, 4), "queries": (4, 3)}


def shares_of_keys(spread: float, state: list[float], seed: int) -> torch.Tensor:
    """Return the attention weight of each of five keys."""
    teacher = Teacher(FEATURES, 1, keys=5, seed=seed, stage_spread=spread)
    return torch.softmax(teacher.queries.detach() @ torch.tensor(state), dim=0)


@pytest.mark.parametrize("seed", range(8))
def test_spread_keys_belong_to_different_stages(seed):
    first, last = [0.0, 1.0, 1.0], [1.0, 0.4, 0.4]
    together, apart = ([shares_of_keys(spread, state, seed) for state in (first, last)] for spread in (0.0, 6.0))
    assert torch.minimum(*together).sum() > 0.6 > 0.25 > torch.minimum(*apart).sum()
    assert apart[0][:2].sum() > 0.8 and apart[1][3:].sum() > 0.8


def test_a_spread_changes_only_queries_and_nothing_with_one_key():
    for keys, moved in ((5, True), (1, False)):
        plain, spread = (Teacher(FEATURES, 2, keys=keys, stage_spread=value) for value in (0.0, 2.0))
        assert torch.equal(plain.values, spread.values)
        assert torch.equal(plain.queries, spread.queries) != moved
        assert torch.equal(plain.queries[:, 2], spread.queries[:, 2])  # dev_loss is no stage feature


@pytest.mark.parametrize("spread", [-1.0, math.nan, math.inf])
def test_invalid_spreads_are_refused(spread):
    with pytest.raises(ValueError, match=f"--stage-spread: {spread}; expected"):
        Teacher(FEATURES, 1, stage_spread=spread)


def test_seed_determines_the_queries_and_leaves_the_global_generator():
    generator = torch.get_rng_state()
    same = [Teacher(FEATURES, 7, seed=3).state_dict() for _ in range(2)]
    other = Teacher(FEATURES, 7, seed=4).state_dict()
    assert all(torch.equal(same[0][name], same[1][name]) for name in other)
    assert not torch.equal(same[0]["queries"], other["queries"])
    assert torch.equal(torch.get_rng_state(), generator)


@pytest.mark.parametrize("initial", [DEFAULT_INITIAL_COEFFICIENT, 1.0, -0.5])
@pytest.mark.parametrize("seed", range(5))
def test_start_is_near_the_initial_coefficient(initial, seed):
    teacher = Teacher(FEATURES, 6, initial_coefficient=initial, seed=seed).double()
    generator = torch.Generator().manual_seed(seed)
    for state in torch.rand(20, len(FEATURES), generator=generator, dtype=torch.float64):
        ratio = teacher(state) / initial
        assert bool(((ratio > 0.9) & (ratio < 1.1)).all())


def test_for_student():
    student = ToyStudent("tanh")
    teacher = Teacher.for_student(student, keys=3, seed=8, initial_coefficient=0.2)
    assert teacher.features == student.state.features
    assert (teacher.entries, teacher.keys) == (WORDS, 3)
    assert teacher.values.dtype == student.omega.dtype
    assert torch.equal(teacher.queries, Teacher(student.state.features, WORDS, keys=3, seed=8).double().queries)
    assert teacher(student.state.vector(0)).sub(0.2).abs().max() < 0.02


@pytest.mark.parametrize(
    ("features", "entries", "keys", "message"),
    [
        ((), 5, 5, r"features: \[\]; expected at least one name, none twice"),
        (("a", "a"), 5, 5, r"features: \['a', 'a'\]; expected at least one name, none twice"),
        (("a",), 0, 5, "entries: 0; expected at least 1"),
        (("a",), 5, 0, "keys: 0; expected at least 1"),
    ],
)
def test_invalid_arguments(features, entries, keys, message):
    with pytest.raises(ValueError, match=message):
        Teacher(features, entries, keys=keys)


def first_hypergradient(prepare=lambda teacher: None, rule=None):
    """Return the hypergradient of a new student's first window under a new teacher, changed by ``prepare``."""
    student = ToyStudent("tanh", rule)
    teacher = Teacher.for_student(student)
    with torch.no_grad():
        prepare(teacher)
    return student, hypergradient(unroll(student, teacher, 5), dev_gradient(student))


@pytest.mark.parametrize("rule", [SGD(), Adam()], ids=["sgd", "adam"])
def test_every_parameter_learns_from_the_first_window(rule):
    student, theta = first_hypergradient(rule=rule)
    targets = torch.cat([part.targets[part.keep] for batch in student.batches for part in batch])
    seen = torch.zeros(WORDS, dtype=torch.bool)
    seen[targets] = True
    assert not bool(seen[UNSEEN])
    assert bool((theta["values"][seen] != 0).all())
    assert bool((theta["queries"] != 0).all())
    # not only rounding errors: the smallest entry of each has a size similar to the largest
    for part in (theta["values"][seen], theta["queries"]):
        assert part.abs().min() > 1e-6 * part.abs().max()


def test_control_equal_columns_leave_the_queries_without_hypergradient():
    def equal_columns(teacher: Teacher) -> None:
        teacher.values.fill_(0.125)

    _, theta = first_hypergradient(equal_columns)
    assert theta["queries"].abs().max() < 1e-18
    assert theta["values"].abs().max() > 1e-6


def test_a_full_phi_starts_as_a_multiple_of_the_identity():
    teacher = Teacher(["progress", "dev_accuracy"], 4, keys=3, initial_coefficient=0.3, form="full")
    assert (teacher.entries, teacher.coefficient_count, teacher.values.shape) == (4, 16, (16, 3))
    phi = teacher(torch.tensor([0.5, 0.2])).detach().view(4, 4)
    assert torch.equal(phi, torch.diag(phi.diagonal()))
    torch.testing.assert_close(phi.diagonal(), torch.full((4,), 0.3), rtol=0.1, atol=0)
    diagonal = Teacher(["progress", "dev_accuracy"], 4, keys=3, initial_coefficient=0.3)
    assert torch.equal(diagonal(torch.tensor([0.5, 0.2])), phi.diagonal())
    assert (diagonal.form, diagonal.coefficient_count) == ("diagonal", 4)


def test_an_unknown_form_is_refused():
    with pytest.raises(ValueError, match="coefficient form: 'banded'; expected diagonal or smoothed or full"):
        Teacher(["progress"], 4, form="banded")


def test_a_smoothed_phi_has_one_more_coefficient():
    options = {"keys": 3, "initial_coefficient": 0.3, "seed": 4}
    teacher = Teacher(["progress", "dev_accuracy"], 4, **options, form="smoothed", initial_off_diagonal=0.06)
    assert (teacher.entries, teacher.coefficient_count, teacher.values.shape) == (4, 5, (5, 3))
    phi = teacher(torch.tensor([0.5, 0.2])).detach()
    diagonal = Teacher(["progress", "dev_accuracy"], 4, **options)(torch.tensor([0.5, 0.2])).detach()
    assert torch.equal(phi[:4], diagonal)
    assert float(phi[4]) == pytest.approx(0.06, rel=1e-6)
    found = teacher.statistics(torch.tensor([0.1, 0.2, 0.3, 0.4, 9.0]))
    assert found == pytest.approx({"phi_min": 0.1, "phi_mean": 0.25, "phi_max": 0.4, "phi_off_diagonal": 9.0})


def test_statistics_of_the_other_forms():
    diagonal, full = (Teacher(["progress"], 2, keys=2, form=form) for form in ("diagonal", "full"))
    assert diagonal.statistics(torch.tensor([1.0, 3.0])) == {"phi_min": 1.0, "phi_mean": 2.0, "phi_max": 3.0}
    found = full.statistics(torch.tensor([1.0, 2.0, 4.0, 9.0]))
    assert found == {"phi_min": 1.0, "phi_mean": 4.0, "phi_max": 9.0, "phi_off_diagonal": 3.0}


def test_a_full_phi_may_have_initial_off_diagonal_coefficients():
    phi = Teacher(["progress"], 3, keys=2, form="full", initial_off_diagonal=0.02)(torch.tensor([0.4])).view(3, 3)
    off = phi[~torch.eye(3, dtype=torch.bool)].detach()
    torch.testing.assert_close(off, torch.full((6,), 0.02))
    with pytest.raises(ValueError, match=r"initial off-diagonal coefficient: 0\.02; expected 0 for a diagonal Phi"):
        Teacher(["progress"], 3, initial_off_diagonal=0.02)
