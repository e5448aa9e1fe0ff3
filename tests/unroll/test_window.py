"""A window under a memory plan: student and hypergradient are equal to the bit under every plan."""

import math
from functools import partial

import pytest
import torch
from checkpoint_schedules.multistage import n_advance, optimal_extra_steps

from fairseq_l2t.core import Teacher, hypergradient, unroll
from fairseq_l2t.testing.hypergradient_check import dev_gradient
from fairseq_l2t.testing.toy_student import MODELS, ToyStudent
from fairseq_l2t.unroll.adjoint_sweep import adjoint_sweep
from fairseq_l2t.unroll.gradients import bytes_of_graph
from fairseq_l2t.unroll.memory.budget import memory_plan
from fairseq_l2t.unroll.memory.plan import GRAPH_SIZE_MARGIN, LOST_BUDGET_SHARE, MemoryPlan, layout_for
from fairseq_l2t.unroll.update_rules import SGD, Adam

STEPS = 13
RULES = {"momentum": SGD(momentum=0.9, weight_decay=0.02), "adam": Adam(0.9, 0.98, 1e-8, weight_decay=0.02)}
PLENTY = 2**30


def make_student(model="tanh", rule="adam", **more):
    return ToyStudent(model, RULES[rule], max_norm=0.2, cross_entropy_updates=2, **more)


def swept(student, plan, steps=STEPS):
    """Return the trajectory, omega_T and the hypergradient."""
    trajectory = unroll(student, Teacher.for_student(student, keys=3, seed=5), steps, plan)
    omega = student.omega.clone()
    return trajectory, omega, hypergradient(trajectory, dev_gradient(student))


def gross(net):
    """Return the budget with ``net`` usable bytes."""
    return math.ceil(net / (1 - LOST_BUDGET_SHARE))


def smallest_budget(student, steps, slots):
    """Return a budget for exactly ``slots`` snapshots of the student."""
    vector = student.omega.nbytes
    state = (1 + len(student.buffers)) * vector
    graph = bytes_of_graph(student, student.next_batch(), None, 0)
    return gross(3 * state + 6 * vector + round(GRAPH_SIZE_MARGIN * graph) + slots * state)


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], part) for name, part in expected.items())


PLANS = {
    "gradients": lambda student: MemoryPlan(),
    "host": lambda student: memory_plan(place="host"),
    "budget": lambda student: memory_plan(PLENTY),
    **{
        f"{slots} snapshots": partial(
            lambda student, slots: memory_plan(smallest_budget(student, STEPS, slots)), slots=slots
        )
        for slots in (1, 2, 4, STEPS)
    },
}


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("model", ["relu", "weight_norm", "recurrent"])
def test_every_plan_gives_the_same_bits(model, rule, plan):
    _, omega, expected = swept(make_student(model, rule), None)
    window, again, found = swept(make_student(model, rule), PLANS[plan](make_student(model, rule)))
    assert torch.equal(again, omega)
    assert_same(found, expected)
    assert torch.equal(window.student.omega, omega)
    # control: another window length gives another hypergradient
    _, _, other = swept(make_student(model, rule), MemoryPlan(), STEPS - 1)
    assert not torch.equal(other["values"], expected["values"])


def test_a_file_gives_the_same_bits(tmp_path):
    _, omega, expected = swept(make_student(), None)
    _, again, found = swept(make_student(), memory_plan(place="file", folder=tmp_path))
    assert torch.equal(again, omega)
    assert_same(found, expected)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("model", MODELS)
def test_kept_graphs_give_the_same_hypergradient(model):
    # Not Adam, which divides a gradient of 0 (the keys' bias) with its rounding error by its own size.
    _, omega, expected = swept(make_student(model, "momentum"), None)
    window, again, found = swept(make_student(model, "momentum"), memory_plan(PLENTY, keep_graphs=True))
    assert window.layout.graphs == STEPS
    torch.testing.assert_close(again, omega, rtol=1e-12, atol=1e-14)
    for name, part in expected.items():
        torch.testing.assert_close(found[name], part, rtol=1e-10, atol=1e-15)
    # a second sweep, without the graphs, which serve only once
    grad_omega = dev_gradient(window.student)
    for name, part in hypergradient(window, grad_omega).items():
        torch.testing.assert_close(part, found[name], rtol=1e-10, atol=1e-15)


def test_graphs_are_saved_for_the_last_updates_only():
    student = make_student()
    graph = bytes_of_graph(student, student.next_batch(), None, 0)
    vector = student.omega.nbytes
    layout = partial(layout_for, STEPS, vector=vector, buffers=2, graph=graph, keep_graphs=True)
    assert layout(budget=PLENTY).graphs == STEPS
    needed = next(budget for budget in range(0, PLENTY, vector) if _fits(layout, budget))
    assert layout(budget=needed).graphs == 0
    assert layout(budget=needed + gross(3 * graph)).graphs == 3
    student = make_student()
    plan = memory_plan(needed + gross(3 * graph), keep_graphs=True)
    window = unroll(student, Teacher.for_student(student), STEPS, plan)
    kept = [revisit.graphs is not None for revisit in window.backwards()]
    assert kept == [True] * window.layout.graphs + [False] * (STEPS - window.layout.graphs)
    assert 0 < window.layout.graphs < STEPS


def _fits(layout, budget):
    try:
        return layout(budget=budget).keeps_gradients
    except ValueError:
        return False


@pytest.mark.parametrize(("steps", "slots"), [(13, 1), (13, 2), (13, 5), (40, 3), (40, 6)])
def test_the_number_of_recomputed_updates_is_minimal(steps, slots):
    student = make_student()
    plan = MemoryPlan(smallest_budget(student, steps, slots), n_advance)
    window, _, _ = swept(make_student(), plan, steps)
    assert window.layout.slots == slots
    # The library also counts the forward part of each step back except the last; the sweep makes it in any case.
    assert window.recomputed == optimal_extra_steps(steps, slots) - (steps - 1)
    # control: one more slot needs fewer
    more, _, _ = swept(make_student(), MemoryPlan(smallest_budget(student, steps, slots + 1), n_advance), steps)
    assert more.recomputed < window.recomputed


def test_no_update_is_recomputed_if_gradients_fit():
    window, _, _ = swept(make_student(), memory_plan(PLENTY))
    assert window.recomputed == 0
    assert window.layout.keeps_gradients


@pytest.mark.parametrize("slots", [2, 4])
def test_a_second_sweep_after_one_that_ends_early(slots):
    plan = memory_plan(smallest_budget(make_student(), STEPS, slots))
    window, _, expected = swept(make_student(), plan)
    grad_omega = dev_gradient(window.student)
    sweep = adjoint_sweep(window, grad_omega)
    assert [next(sweep).update for _ in range(4)] == [STEPS - 1 - k for k in range(4)]
    sweep.close()
    assert_same(hypergradient(window, grad_omega), expected)


def test_a_budget_too_small_is_refused_with_the_smallest_sufficient_one():
    student = make_student()
    with pytest.raises(ValueError, match=r"--memory-budget: 1M; a window of 13 updates .* at least \d+M"):
        layout_for(13, vector=2**20, buffers=2, budget=2**20)
    with pytest.raises(ValueError, match="--memory-budget"):
        unroll(student, Teacher.for_student(student), STEPS, memory_plan(2**10))
    least = layout_for(13, vector=2**20, buffers=2, budget=gross(18 * 2**20))
    assert (least.slots, least.block) == (1, 0)
    # Between the minimum and the margin for larger batches: one snapshot, and no refusal.
    graph = 4 * 2**20
    assert layout_for(13, vector=2**20, buffers=2, budget=gross(22 * 2**20), graph=graph).slots == 1
    with pytest.raises(ValueError, match="at least 24M"):
        layout_for(13, vector=2**20, buffers=2, budget=gross(22 * 2**20) - 2, graph=graph)
    with pytest.raises(ValueError, match="at least 55M"):
        layout_for(13, vector=2**20, buffers=2, budget=18 * 2**20, can_recompute=False)


def test_memory_grows_by_one_gradient_per_update():
    """With Adam: a third of a snapshot per update, and snapshots whose number grows with the root of T."""
    vector, state = 1000, 3000

    def needed(steps):
        block = layout_for(steps, vector=vector, buffers=2).block
        return steps * vector + (-(-steps // block) + block) * state

    assert (needed(320) - needed(80)) / 240 < 1.1 * state / 2
    assert layout_for(80, vector=vector, buffers=2, budget=gross(needed(80) + 15 * vector + 100)).keeps_gradients
    assert not layout_for(80, vector=vector, buffers=2, budget=gross(needed(80) + 14 * vector)).keeps_gradients


def test_graphs_need_a_budget():
    with pytest.raises(ValueError, match="--keep-graphs: needs a --memory-budget"):
        MemoryPlan(keep_graphs=True)


@pytest.mark.parametrize("slots", [2, None])
def test_memory_is_given_back_at_intervals(slots):
    """During the unroll, before the sweep, and during the sweep."""
    student, calls = make_student(), []
    budget = PLENTY if slots is None else smallest_budget(student, 70, slots)
    window, _, _ = swept(student, MemoryPlan(budget, n_advance, give_back=lambda: calls.append(1)), steps=70)
    assert window.layout.slots == (slots or 0)
    assert len(calls) == 70 // 32 + 1 + 3
