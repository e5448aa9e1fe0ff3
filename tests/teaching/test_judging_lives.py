"""Lives that judge a teacher: of fixed seeds, on held-back pairs; and back to the best one with smaller steps."""

import dataclasses

import pytest
import torch

from fairseq_l2t.testing.toy_lives import JUDGED, PLAN, run, trainer


def test_lives_of_fixed_seeds_judge_a_teacher_before_its_first_update_and_after_each_life():
    subject, plain, kept = trainer(JUDGED), trainer(), []
    lived = []
    live = subject._lives.live
    subject._lives.live = lambda seed: (lived.append(seed), live(seed))
    reports = run(subject, 6, lambda: kept.append((subject.teacher_update, subject.best_holdout)))
    assert lived == [*JUDGED.holdout_seeds] * 3 and not set(lived) & {JUDGED.seed + life for life in range(99)}
    # What teaches is as without them, to the bit.
    for report, other in zip(reports, run(plain, 6), strict=True):
        judged = {"holdout_measure": other.holdout_measure, "initial_holdout_measure": None}
        assert dataclasses.replace(report, **judged) == other
    assert [report.initial_holdout_measure for report in reports] == [kept[0][1], None, None, None, None, None]
    assert torch.equal(subject.teacher.values, plain.teacher.values)
    assert [r.holdout_measure is not None for r in reports] == [False, False, True] * 2
    # The one it began with is among those to choose from, and the last one is judged as it is after its update.
    assert kept[0][0] == 0
    again = trainer(JUDGED)
    again.teacher.load_state_dict(subject.teacher.state_dict())
    assert again._judge(lambda: None) == reports[-1].holdout_measure
    assert reports[-1].holdout_measure != reports[2].holdout_measure


BACK = dataclasses.replace(JUDGED, unroll_length=8, holdout_lives=1, teacher_lr_shrink=0.5)
"""Windows of whole lives, each judged."""


def test_back_to_the_best_with_smaller_steps():
    judged = [0.3, 0.4, 0.2, 0.1, 0.5]  # of the teacher as it begins, and after each update
    subject, plain = (
        trainer(plan, holdouts=list(judged)) for plan in (BACK, dataclasses.replace(BACK, teacher_lr_shrink=1.0))
    )
    run(plain, 1)
    first = run(subject, 1)[0]
    best, moments = subject.teacher.values.detach().clone(), subject._optimizer.state_dict()
    moments = {name: tensor.clone() for name, tensor in moments.items()}
    assert torch.equal(best, plain.teacher.values)  # better: as without
    reports = [first, *run(subject, 2)]
    assert torch.equal(subject.teacher.values, best)
    assert all(torch.equal(tensor, moments[name]) for name, tensor in subject._optimizer.state_dict().items())
    reports += run(subject, 1)
    assert [report.teacher_rate_factor for report in reports] == [1.0, 0.5, 0.25, 0.25]
    assert subject.best_holdout == 0.5
    run(plain, 3)
    # A quarter of the step; without the option there were three whole ones.
    quarter, whole = ((one.teacher.values.detach() - best).abs().max() for one in (subject, plain))
    assert 0 < quarter < 0.3 * (PLAN.teacher_lr + PLAN.teacher_word_lr) < whole


def test_going_back_needs_lives_that_judge():
    with pytest.raises(ValueError, match="--teacher-lr-shrink: 0.5; needs --holdout-lives"):
        dataclasses.replace(BACK, holdout_lives=0)


def test_back_after_a_life_that_ended_in_nan():
    subject = trainer(BACK)
    before = subject.teacher.values.detach().clone()
    subject._judge(lambda: None)
    subject.life = 0  # judged as it begins
    subject._life_is_spoilt = True
    subject._judge = lambda keep_best: None
    report = run(subject, 1)[0]
    assert report.holdout_measure is None and report.teacher_rate_factor == 0.5
    assert torch.equal(subject.teacher.values, before)


def test_going_back_is_resumed_to_the_bit():
    judged = [0.3, 0.4, 0.2, 0.1, 0.5, 0.6]
    whole = trainer(BACK, holdouts=list(judged))
    run(whole, 5)
    begun = trainer(BACK, holdouts=list(judged))
    run(begun, 2)
    tensors, values = begun.state_dict()
    resumed = trainer(BACK, holdouts=judged[3:])
    resumed.load_state_dict({name: tensor.clone() for name, tensor in tensors.items()}, values)
    reports = run(resumed, 3)
    assert torch.equal(resumed.teacher.values, whole.teacher.values)
    assert [report.teacher_rate_factor for report in reports] == [0.25, 0.25, 0.25]


def test_a_judging_life_is_lived_as_one_that_teaches():
    """Down to what it is shown of dev, when no hypergradient is taken of it."""
    for interval in (0, 3):
        judged, taught = (trainer(warmup=2, interval=interval) for _ in range(2))
        taught._optimizer.step = lambda theta, norm: None
        run(taught, 2)
        judged._lives.live(PLAN.seed)
        assert torch.equal(judged.student.omega, taught.student.omega)
        assert judged.student.state.state_dict() == taught.student.state.state_dict()
        judged._lives.live(PLAN.seed + 1)
        assert not torch.equal(judged.student.omega, taught.student.omega)


def test_a_teacher_that_ruins_a_judging_life_is_not_chosen():
    ruined = JUDGED.holdout_seeds[1]
    subject, kept, told = trainer(JUDGED, bad_lives=[ruined]), [], []
    subject._on_bad_window = told.append
    reports = run(subject, 7, lambda: kept.append(subject.teacher_update))
    assert [(r.student_life, r.student_update) for r in reports] == [
        (0, 3),
        (0, 6),
        (0, 8),
        (1, 3),
        (1, 6),
        (1, 8),
        (2, 3),
    ]
    assert kept == [] and subject.best_holdout is None and len(told) == 3
    assert "--holdout-lives" in str(told[0]) and "not chosen" in str(told[0])
