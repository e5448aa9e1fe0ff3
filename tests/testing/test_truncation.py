import pytest
import torch

from fairseq_l2t.testing.tiny_students import make_student, spread_teacher
from fairseq_l2t.testing.truncation import compare, sweep, window_lengths
from fairseq_l2t.unroll.adjoint_sweep import hypergradient_with_adjoint
from fairseq_l2t.unroll.trajectory import Trajectory, advance, unroll

UPDATES, LAST = 6, 2


@pytest.fixture(scope="module")
def unrolled(data_bin):
    student = make_student(data_bin).double()
    teacher = spread_teacher(student)
    advance(student, teacher, student.cross_entropy_updates)
    return unroll(student, teacher, UPDATES), student.dev_objective("likelihood")[1]


@pytest.fixture(scope="module")
def found(unrolled):
    return sweep(*unrolled)


def flat(theta):
    return torch.cat([theta[name].flatten() for name in ("values", "queries")])


def test_all_shares_are_the_full_hypergradient(unrolled, found):
    trajectory, gradient = unrolled
    full = hypergradient_with_adjoint(trajectory, gradient)
    assert torch.allclose(found.shares.sum(dim=0), flat(full.theta), rtol=1e-12, atol=1e-18)
    same = compare(found, found.shares[-UPDATES:].sum(dim=0), flat(full.theta))
    for part in same.values():
        assert part["cosine"] == pytest.approx(1, abs=1e-12)
        assert part["ratio"] == pytest.approx(1, abs=1e-12)


def test_a_truncated_hypergradient_is_that_of_a_later_start(unrolled, found):
    trajectory, gradient = unrolled
    later = Trajectory(trajectory.student, trajectory.teacher, trajectory.steps[-LAST:])
    assert torch.equal(sweep(later, gradient).shares, found.shares[-LAST:])
    exact = flat(hypergradient_with_adjoint(later, gradient).theta)
    assert torch.allclose(found.shares[-LAST:].sum(dim=0), exact, rtol=1e-12, atol=1e-18)
    # Control: one update more is another hypergradient.
    assert not torch.allclose(found.shares[-LAST - 1 :].sum(dim=0), exact, rtol=1e-3)


def test_adjoint_norms_are_those_of_the_hypergradient(unrolled, found):
    trajectory, gradient = unrolled
    assert len(found.adjoint_norms) == UPDATES + 1
    assert found.adjoint_norms[0] == float(gradient.norm())
    for length in (LAST, UPDATES):
        part = Trajectory(trajectory.student, trajectory.teacher, trajectory.steps[-length:])
        assert found.adjoint_norms[length] == hypergradient_with_adjoint(part, gradient).adjoint_norm
    assert found.adjoint_norms[LAST] != found.adjoint_norms[UPDATES]


def test_no_updates_point_nowhere(found):
    nothing = compare(found, found.shares[:0].sum(dim=0), found.shares.sum(dim=0))
    assert {(part["cosine"], part["ratio"]) for part in nothing.values()} == {(0.0, 0.0)}


def test_components_are_a_split_of_the_values(unrolled, found):
    theta = found.shares.sum(dim=0)
    parts = found.components(theta)
    entries = unrolled[0].teacher.entries
    values = theta[: entries * found.keys].view(entries, found.keys)
    assert torch.allclose(parts["words"].view(entries, found.keys) + parts["shared"] / entries, values, atol=1e-18)
    assert compare(found, -theta, theta)["shared"]["level"] == pytest.approx(-float(values.sum()))


def test_a_shared_level_of_the_other_sign_shows(found):
    theta = found.shares.sum(dim=0)
    shared = compare(found, -0.5 * theta, theta)["shared"]
    assert shared["cosine"] == pytest.approx(-1)
    assert shared["ratio"] == pytest.approx(0.5)
    assert shared["level"] == pytest.approx(-0.5 * shared["whole_level"])


@pytest.mark.parametrize(
    ("updates", "expected"), [(1, [1]), (4, [1, 2, 4]), (5, [1, 2, 5]), (21, [1, 2, 5, 10, 20, 21])]
)
def test_window_lengths_end_with_all(updates, expected):
    assert window_lengths(updates) == expected
