"""The outer loop: windows, lives, choice of the best teacher, bad windows, resumption."""

import copy
import dataclasses
import math

import pytest
import torch

from fairseq_l2t.core import NonFiniteError, Teacher, hypergradient, unroll
from fairseq_l2t.teaching import window_runner
from fairseq_l2t.teaching.teacher_optimizer import TeacherOptimizer
from fairseq_l2t.testing.hypergradient_check import dev_gradient
from fairseq_l2t.testing.toy_lives import JUDGED, PLAN, MortalStudent, run, trainer
from fairseq_l2t.unroll.adjoint_sweep import adjoint_sweep


def test_a_life_is_cut_into_windows_and_the_next_goes_on_where_it_ended():
    reports = run(trainer(), 7)
    assert [(r.student_life, r.student_update) for r in reports] == [
        (0, 3),
        (0, 6),
        (0, 8),
        (1, 3),
        (1, 6),
        (1, 8),
        (2, 3),
    ]
    assert [r.holdout_measure is not None for r in reports] == [False, False, True] * 2 + [False]
    assert [r.teacher_update for r in reports] == list(range(1, 8))
    assert reports[2].progress == 8 / 20  # of the 20 updates the toy calls a life
    assert reports[0].states[-1]["dev_accuracy"] == 0.5


def test_states_are_told_from_the_beginning_of_a_life_and_inside_its_windows():
    # Dev is looked at after updates 2, 4, 6 and 8; windows end after 3, 6 and 8, of the 20 the toy calls a life.
    reports = run(trainer(interval=2), 4)
    told = [[round(20 * state["progress"]) for state in report.states] for report in reports]
    assert told == [[0, 2, 3], [4, 6], [8], [0, 2, 3]]
    assert reports[0].states[0]["dev_accuracy"] != 0.5 == reports[0].states[1]["dev_accuracy"]
    judged = run(trainer(dataclasses.replace(PLAN, holdout_lives=1), interval=2), 4)  # lives that judge leave no trace
    assert [report.states for report in judged][:2] == [report.states for report in reports][:2]
    assert [round(20 * state["progress"]) for state in judged[3].states] == [0, 2, 3]


def test_algorithm_1():
    """Every teacher update has a new student and all updates of its life; no dev example judges a teacher."""
    plan = dataclasses.replace(PLAN, unroll_length=8, dev_holdout=0.0, teacher_optimizer="plain", teacher_word_lr=0.05)
    subject, kept, student = trainer(plan), [], MortalStudent()
    teacher = copy.deepcopy(subject.teacher)
    reports = run(subject, 3, lambda: kept.append(1))
    assert [(one.student_life, one.student_update) for one in reports] == [(0, 8), (1, 8), (2, 8)]
    assert not kept and {one.holdout_measure for one in reports} == {None} == {subject.best_holdout}
    adam = torch.optim.Adam([teacher.values, teacher.queries], lr=0.05, maximize=True)
    for life in range(3):
        student.restart(plan.seed + life)
        theta = hypergradient(unroll(student, teacher, 8), dev_gradient(student))
        teacher.values.grad, teacher.queries.grad = theta["values"], theta["queries"]
        adam.step()
    for own, expected in zip(subject.teacher.parameters(), teacher.parameters(), strict=True):
        torch.testing.assert_close(own, expected, rtol=1e-10, atol=0)


def test_cross_entropy_comes_first_in_each_life_and_outside_the_windows():
    reports = run(trainer(warmup=2), 4)
    assert [(r.student_life, r.student_update) for r in reports] == [(0, 5), (0, 8), (1, 5), (1, 8)]


def validations(windows: int, warmup: int, interval: int, backward: int = 0) -> list[int]:
    """Return the updates at which the student is validated."""
    seen = []
    subject = trainer(dataclasses.replace(PLAN, backward_length=backward), warmup=warmup, interval=interval)
    subject._lives._observe_dev = lambda: seen.append(subject.student.update)
    run(subject, windows)
    return seen


def test_validated_after_cross_entropy_and_after_each_window():
    assert validations(2, warmup=2, interval=0) == [2, 5, 8]
    assert validations(2, warmup=0, interval=0) == [3, 6]


@pytest.mark.parametrize("backward", [0, 1])
def test_validated_every_so_many_updates_inside_windows_too(backward):
    """As fairseq-train does: at whole multiples, in the updates that are not gone back through as well."""
    assert validations(3, warmup=3, interval=2, backward=backward) == [2, 4, 6, 8, 2, 4, 6]
    assert validations(3, warmup=0, interval=5, backward=backward) == [5]


@pytest.mark.parametrize("backward", [1, 3, 5])
def test_the_sweep_goes_back_through_the_last_updates_alone(backward):
    """And the student is the same: nothing but the hypergradient is cut."""
    plan = dataclasses.replace(PLAN, unroll_length=5)
    whole, cut = trainer(plan), trainer(dataclasses.replace(plan, backward_length=backward))
    found = []
    for subject in (whole, cut):
        subject._optimizer.step = lambda theta, norm: found.append(theta)
        subject.report = subject.run_update(lambda: None)
    assert torch.equal(whole.student.omega, cut.student.omega)
    assert whole.report.measure == cut.report.measure
    student = MortalStudent()
    student.restart(PLAN.seed)
    trajectory = unroll(student, Teacher.for_student(student, keys=3), 5)
    shares = [step.theta for step in adjoint_sweep(trajectory, dev_gradient(student))][:backward]
    for name, part in found[1].items():
        torch.testing.assert_close(part, sum(share[name] for share in shares), rtol=1e-12, atol=0.0)
        assert torch.equal(part, found[0][name]) == (backward == 5)


def test_the_pulls_of_a_window_add_up_to_the_hypergradient_of_one_key():
    """And differ from tenth to tenth: what is reported is where in the window they arise."""
    subject = trainer(dataclasses.replace(PLAN, unroll_length=8))
    subject.teacher = Teacher.for_student(subject.student, keys=1)
    subject._optimizer = TeacherOptimizer(
        subject.teacher, dataclasses.replace(PLAN, teacher_lr=0.1, teacher_word_lr=0.0)
    )
    seen = []
    subject._optimizer.step = lambda theta, norm: seen.append(theta)
    report = subject.run_update(lambda: None)
    assert len(report.pull_by_tenth) == 10
    expected = float(seen[0]["values"].sum())
    assert math.isclose(sum(report.pull_by_tenth), expected, rel_tol=1e-9) and expected != 0
    # Eight updates stand in eight of the ten, one each.
    assert len(set(report.pull_by_tenth) - {0.0}) == 8


def test_an_approximation_that_is_far_off_is_refused_before_the_teacher_moves(monkeypatch):
    subject = trainer(dataclasses.replace(PLAN, unroll_length=8, hvp="finite-difference"))
    before = subject.teacher.values.detach().clone()
    monkeypatch.setattr(window_runner, "LARGEST_RELATIVE_ERROR", 1e-16)
    with pytest.raises(
        ValueError,
        match=r"--hvp: finite-difference; .* expected below 1e-16: use exact, an "
        r"--unroll-length below 8, or more --cross-entropy-updates",
    ):
        subject.run_update(lambda: None)
    assert subject.teacher_update == 0 and torch.equal(subject.teacher.values, before)
    monkeypatch.undo()
    report = subject.run_update(lambda: None)
    assert 0 < report.hypergradient_error < 0.1 and not torch.equal(subject.teacher.values, before)


def test_the_teacher_moves_towards_a_better_measure():
    plan = dataclasses.replace(PLAN, unroll_length=8, teacher_updates=12)
    subject = trainer(plan)
    # The same student each time, so that only the teacher makes the difference.
    first = subject.run_update(lambda: None).measure
    for _ in range(11):
        subject.life = -1
        last = subject.run_update(lambda: None).measure
    assert last > first
    control = trainer(dataclasses.replace(plan, teacher_lr=1e-12, teacher_word_lr=0.0))
    again = [control.run_update(lambda: None).measure]
    control.life = -1
    again.append(control.run_update(lambda: None).measure)
    assert again[0] == first
    assert math.isclose(again[1], first, rel_tol=1e-9)


def test_the_best_is_kept_before_the_teacher_moves():
    subject = trainer(holdouts=[0.3, 0.2, 0.4])
    kept = []
    run(subject, 9, lambda: kept.append((subject.life, subject.teacher.values.detach().clone())))
    assert [life for life, _ in kept] == [0, 2]
    assert subject.best_holdout == 0.4
    taught_life_0 = trainer(holdouts=[0.3])
    run(taught_life_0, 2)
    # The window that ended life 0 was taught by the teacher of after two updates, and that is what is kept.
    assert torch.equal(kept[0][1], taught_life_0.teacher.values)


def test_a_life_has_ended_with_its_last_window():
    subject = trainer()
    assert not subject.has_ended_a_life
    ended = []
    for _ in range(4):
        run(subject, 1)
        ended.append(subject.has_ended_a_life)
    assert ended == [False, False, True, True]


def test_a_bad_window_leaves_the_teacher_and_begins_another_life():
    subject = trainer(bad_lives=[PLAN.seed])
    report = subject.run_update(lambda: None)
    assert report.student_life == 1
    control = trainer()
    assert control.run_update(lambda: None).student_life == 0


def test_too_many_bad_windows_give_up_with_the_teacher_as_it_was():
    subject = trainer(bad_lives=range(PLAN.seed, PLAN.seed + 3))
    before = subject.teacher.values.detach().clone()
    with pytest.raises(NonFiniteError, match=r"student update 0.*; 3 windows in a row .* \(--max-bad-steps\)"):
        subject.run_update(lambda: None)
    assert torch.equal(subject.teacher.values, before)
    patient = trainer(dataclasses.replace(PLAN, max_bad_steps=4), bad_lives=range(PLAN.seed, PLAN.seed + 3))
    assert patient.run_update(lambda: None).student_life == 3


def test_a_measure_that_is_no_number_is_a_bad_window():
    subject = trainer(dataclasses.replace(PLAN, max_bad_steps=1))
    before, measure = subject.teacher.values.detach().clone(), subject._windows._measure
    subject._windows._measure = lambda update: (math.nan, measure(update)[1])
    with pytest.raises(NonFiniteError, match=r"^student update 3: the measure is nan; one window ended"):
        subject.run_update(lambda: None)
    assert torch.equal(subject.teacher.values, before)


def test_lives_that_are_bad_from_their_cross_entropy_updates_are_counted():
    subject = trainer(warmup=2, bad_lives=range(PLAN.seed, PLAN.seed + 2))
    assert subject.run_update(lambda: None).student_life == 2
    hopeless = trainer(warmup=2, bad_lives=range(PLAN.seed, PLAN.seed + 9))
    with pytest.raises(NonFiniteError):
        hopeless.run_update(lambda: None)
    assert hopeless.life == PLAN.max_bad_steps - 1


def test_a_held_back_measure_that_is_no_number_chooses_nothing():
    subject = trainer(holdouts=[math.nan, 0.3])
    kept = []
    reports = run(subject, 5, lambda: kept.append(subject.life))
    assert [(r.student_life, r.student_update) for r in reports] == [(0, 3), (0, 6), (1, 3), (1, 6), (1, 8)]
    assert (kept, subject.best_holdout) == ([1], 0.3)


@pytest.mark.parametrize(
    ("stop", "plan", "bad"),
    [
        (1, PLAN, ()),
        (3, PLAN, ()),
        (4, PLAN, ()),
        (2, JUDGED, ()),
        (3, JUDGED, ()),
        (3, JUDGED, JUDGED.holdout_seeds),
    ],
)
def test_resumed_run_is_bit_equal(stop, plan, bad):
    whole, first, second = trainer(plan, bad_lives=bad), trainer(plan, bad_lives=bad), trainer(plan, seed=9)
    second.student.bad_lives = whole.student.bad_lives
    reports = run(whole, 7)
    assert run(first, stop) == reports[:stop]
    tensors, values = first.state_dict()
    second.load_state_dict({name: tensor.clone() for name, tensor in tensors.items()}, values)
    assert run(second, 7 - stop) == reports[stop:]
    assert torch.equal(second.teacher.values, whole.teacher.values)
    assert torch.equal(second.teacher.queries, whole.teacher.queries)
    other = trainer(seed=9)
    run(other, 7)
    assert not torch.equal(other.teacher.queries, whole.teacher.queries)


def test_another_plan_is_not_resumed_but_more_updates_are():
    first = trainer()
    run(first, 1)
    state = first.state_dict()
    with pytest.raises(ValueError, match=r"--resume.*--teacher-lr 0.05 then, 0.1 now"):
        trainer(dataclasses.replace(PLAN, teacher_lr=0.1)).load_state_dict(*state)
    longer = trainer(dataclasses.replace(PLAN, teacher_updates=20))
    longer.load_state_dict(*state)
    assert longer.teacher_update == 1


@pytest.mark.parametrize(
    ("option", "change"),
    [
        ("--unroll-length", {"unroll_length": 0}),
        ("--unroll-length", {"unroll_length": 9}),
        ("--total-updates", {"total_updates": 0}),
        ("--teacher-updates", {"teacher_updates": -1}),
        ("--teacher-lr", {"teacher_lr": 0.0}),
        ("--teacher-lr", {"teacher_lr": math.nan}),
        ("--teacher-lr", {"teacher_lr": math.inf}),
        ("--teacher-word-lr", {"teacher_word_lr": -0.1}),
        ("--teacher-clip-norm", {"teacher_clip_norm": -1.0}),
        ("--max-bad-steps", {"max_bad_steps": 0}),
        ("--backward-length", {"backward_length": 4}),
        ("--backward-length", {"backward_length": -1}),
        ("--holdout-lives", {"holdout_lives": -1}),
        ("--teacher-lr-shrink", {"teacher_lr_shrink": 0.0}),
        ("--teacher-lr-shrink", {"teacher_lr_shrink": 1.5}),
        ("--teacher-lr-shrink", {"teacher_lr_shrink": float("nan")}),
    ],
)
def test_numbers_out_of_range_are_refused_by_name(option, change):
    with pytest.raises(ValueError, match=rf"{option}: .*; expected") as refused:
        dataclasses.replace(PLAN, **change)
    assert str(next(iter(change.values()))) in str(refused.value)


def test_numbers_at_the_edge_of_the_range_are_taken():
    dataclasses.replace(PLAN, unroll_length=8, teacher_word_lr=0.0, teacher_clip_norm=0.0, max_bad_steps=1)
