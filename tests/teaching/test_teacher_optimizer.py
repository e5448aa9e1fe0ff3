"""How the teacher moves: shared level, words' own parts, clipping, resumption."""

import dataclasses

import pytest
import torch

from fairseq_l2t.core import Teacher
from fairseq_l2t.teaching.teacher_optimizer import TeacherOptimizer
from fairseq_l2t.testing.toy_lives import PLAN

WORDS, KEYS = 7, 3


def optimizer_of(
    subject: Teacher, lr: float, word_lr: float, clip_norm: float = 0.0, off_diagonal_lr: float = 0.0
) -> TeacherOptimizer:
    """Return the optimizer of ``subject`` with these rates."""
    rates = {"teacher_lr": lr, "teacher_word_lr": word_lr, "teacher_off_diagonal_lr": off_diagonal_lr}
    return TeacherOptimizer(subject, dataclasses.replace(PLAN, **rates, teacher_clip_norm=clip_norm))


def teacher(seed: int = 0) -> Teacher:
    """Return a small float64 teacher."""
    return Teacher(["progress", "loss"], WORDS, keys=KEYS, seed=seed).double()


def gradient(seed: int) -> dict[str, torch.Tensor]:
    """Return a hypergradient that differs from word to word."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {name: parameter.shape for name, parameter in teacher().named_parameters()}
    return {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in shapes.items()}


def moved(word_lr: float, clip_norm: float = 0.0, steps: int = 3, scale: float = 1.0) -> Teacher:
    """Return a teacher after some steps along fixed hypergradients."""
    result = teacher()
    optimizer = optimizer_of(result, lr=0.05, word_lr=word_lr, clip_norm=clip_norm)
    for seed in range(steps):
        theta = {name: part * scale for name, part in gradient(seed).items()}
        norm = float(torch.cat([part.reshape(-1) for part in theta.values()]).norm())
        optimizer.step(theta, norm)
    return result


def test_first_step_ascends_by_the_learning_rates():
    # Adam's first step is lr in the direction of the gradient's sign: for u that of the sum, for D each word's own.
    before, after, theta = teacher().values, moved(0.01, steps=1).values, gradient(0)["values"]
    expected = before + 0.05 * theta.sum(dim=0).sign() + 0.01 * theta.sign()
    torch.testing.assert_close(after, expected, rtol=1e-6, atol=1e-8)
    assert not torch.allclose(after, before - 0.05 * theta.sum(dim=0).sign(), atol=1e-3)


def test_without_a_word_rate_all_words_move_as_one():
    shift = (moved(0.0).values - teacher().values).detach()
    torch.testing.assert_close(shift, shift[:1].expand_as(shift), rtol=0, atol=1e-12)
    assert float(shift.abs().min()) > 0
    own = (moved(0.01).values - teacher().values).detach()
    assert float((own - own[:1]).abs().max()) > 1e-3


def test_clipping_bounds_what_reaches_adam():
    # Adam is blind to a constant scale, so the bound shows where one hypergradient of several is far too large.
    def after_outlier(clip_norm: float) -> torch.Tensor:
        result = teacher()
        optimizer = optimizer_of(result, lr=0.05, word_lr=0.05, clip_norm=clip_norm)
        for seed, scale in ((0, 1.0), (1, 1e6), (2, 1.0), (3, 1.0)):
            theta = {name: part * scale for name, part in gradient(seed).items()}
            optimizer.step(theta, float(torch.cat([part.reshape(-1) for part in theta.values()]).norm()))
        return result.values.detach()

    free, bounded = after_outlier(0.0), after_outlier(5.0)
    assert torch.isfinite(bounded).all()
    assert float((free - bounded).abs().max()) > 1e-3
    torch.testing.assert_close(moved(0.01, clip_norm=1e9).values, moved(0.01).values, rtol=0, atol=0)


def test_resumed_steps_are_bit_equal():
    whole = moved(0.01, steps=4)
    first = teacher()
    optimizer = optimizer_of(first, lr=0.05, word_lr=0.01)
    for seed in range(2):
        optimizer.step(gradient(seed), 1.0)
    saved = {name: tensor.clone() for name, tensor in optimizer.state_dict().items()}
    second = teacher(seed=5)
    second.load_state_dict(first.state_dict())
    resumed = optimizer_of(second, lr=0.05, word_lr=0.01)
    resumed.load_state_dict(saved)
    for seed in range(2, 4):
        resumed.step(gradient(seed), 1.0)
    assert torch.equal(second.values, whole.values)
    assert torch.equal(second.queries, whole.queries)


@pytest.mark.parametrize("missing", ["word.exp_avg", "queries.exp_avg_sq"])
def test_resumption_control_a_lost_moment_differs(missing):
    first = teacher()
    optimizer = optimizer_of(first, lr=0.05, word_lr=0.01)
    optimizer.step(gradient(0), 1.0)
    saved = {name: tensor.clone() for name, tensor in optimizer.state_dict().items()}
    saved[missing].zero_()
    resumed = optimizer_of(first, lr=0.05, word_lr=0.01)
    resumed.load_state_dict(saved)
    resumed.step(gradient(1), 1.0)
    whole = moved(0.01, steps=2)
    assert not (torch.equal(first.values, whole.values) and torch.equal(first.queries, whole.queries))


def full_teacher() -> Teacher:
    """Return a float64 teacher of a full Phi of three classes."""
    return Teacher(["progress", "loss"], 3, keys=KEYS, form="full").double()


def test_a_full_phi_has_two_levels():
    result = full_teacher()
    before = result.values.detach().clone()
    generator = torch.Generator().manual_seed(5)
    theta = {
        "values": torch.randn(9, KEYS, generator=generator, dtype=torch.float64),
        "queries": torch.zeros(KEYS, 2, dtype=torch.float64),
    }
    optimizer = optimizer_of(result, lr=0.05, word_lr=0.01, off_diagonal_lr=0.002)
    optimizer.step(theta, 1.0)
    diagonal = torch.eye(3, dtype=torch.bool).reshape(-1)
    expected = before + 0.01 * theta["values"].sign()
    expected[diagonal] += 0.05 * theta["values"][diagonal].sum(dim=0).sign()
    expected[~diagonal] += 0.002 * theta["values"][~diagonal].sum(dim=0).sign()
    torch.testing.assert_close(result.values.detach(), expected, rtol=1e-6, atol=1e-8)


def test_a_full_phi_resumes_where_it_was():
    steps = [
        {"values": torch.full((9, KEYS), float(k)).double().cos(), "queries": torch.ones(KEYS, 2).double()}
        for k in range(4)
    ]
    whole, first, second = full_teacher(), full_teacher(), full_teacher()
    options = {"lr": 0.05, "word_lr": 0.01, "off_diagonal_lr": 0.02}
    optimizer = optimizer_of(whole, **options)
    for theta in steps:
        optimizer.step(theta, 1.0)
    begun = optimizer_of(first, **options)
    for theta in steps[:2]:
        begun.step(theta, 1.0)
    second.load_state_dict(first.state_dict())
    resumed = optimizer_of(second, **options)
    resumed.load_state_dict({name: part.clone() for name, part in begun.state_dict().items()})
    assert not torch.equal(second.values, whole.values)  # control: two updates behind
    for theta in steps[2:]:
        resumed.step(theta, 1.0)
    assert torch.equal(second.values, whole.values) and torch.equal(second.queries, whole.queries)


def test_the_last_coefficient_of_a_smoothed_phi_is_its_own_level():
    result = Teacher(["progress", "loss"], 3, keys=KEYS, form="smoothed", initial_off_diagonal=0.1).double()
    before = result.values.detach().clone()
    theta = {
        "values": torch.randn(4, KEYS, generator=torch.Generator().manual_seed(5), dtype=torch.float64),
        "queries": torch.zeros(KEYS, 2, dtype=torch.float64),
    }
    given = theta["values"].clone()
    optimizer_of(result, lr=0.05, word_lr=0.01, off_diagonal_lr=0.002).step(theta, 1.0)
    expected = before.clone()
    expected[:3] += 0.01 * given[:3].sign() + 0.05 * given[:3].sum(dim=0).sign()
    expected[3] += 0.002 * given[3].sign()
    torch.testing.assert_close(result.values.detach(), expected, rtol=1e-6, atol=1e-8)
    assert torch.equal(theta["values"], given)  # not the caller's to lose


def test_a_smoothed_phi_stays_unsmoothed_at_rate_0():
    result = Teacher(["progress", "loss"], 3, keys=KEYS, form="smoothed").double()
    theta = {"values": torch.ones(4, KEYS).double(), "queries": torch.zeros(KEYS, 2).double()}
    optimizer = optimizer_of(result, lr=0.05, word_lr=0.01, off_diagonal_lr=0.0)
    for _ in range(3):
        optimizer.step(theta, 1.0)
    assert not result.values[3].any() and (result.values[:3] > 0.2).all()


def test_the_decay_rates_of_adam():
    """Without memory of the gradients before, each step is of the full rate; the first step is the same for all."""

    def after(steps: int, **betas) -> torch.Tensor:
        result = teacher()
        optimizer = TeacherOptimizer(result, dataclasses.replace(PLAN, **betas))
        for seed in range(steps):
            optimizer.step(gradient(seed), 1.0)
        return result.queries.detach()

    assert torch.equal(after(3), after(3, teacher_adam_betas=(0.9, 0.999)))
    memoryless = [after(steps, teacher_adam_betas=(0.0, 0.0)) for steps in (0, 1, 2)]
    for before, now in zip(memoryless, memoryless[1:], strict=False):
        torch.testing.assert_close((now - before).abs(), torch.full_like(now, PLAN.teacher_lr), rtol=1e-6, atol=1e-8)
    assert not torch.allclose(after(2), memoryless[2])
    with pytest.raises(ValueError, match="--teacher-adam-betas: 1.0; expected 2 values in parentheses, each a number"):
        dataclasses.replace(PLAN, teacher_adam_betas=(0.9, 1.0))


@pytest.mark.parametrize("form", ["diagonal", "smoothed"])
def test_plain_is_adam_on_w_and_v(form):
    """To the bit, over a resumption; the control is the optimizer with levels."""
    plan = dataclasses.replace(PLAN, teacher_optimizer="plain", teacher_lr=0.05, teacher_word_lr=0.05)

    def subject():
        return Teacher(["progress", "loss"], WORDS, keys=KEYS, form=form).double()

    ours, reference, levels = subject(), subject(), subject()
    adam = torch.optim.Adam([reference.values, reference.queries], lr=0.05, maximize=True)
    optimizer, other = TeacherOptimizer(ours, plan), optimizer_of(levels, lr=0.05, word_lr=0.05, off_diagonal_lr=0.05)
    for seed in range(4):
        torch.manual_seed(seed)
        theta = {name: torch.randn_like(one) for name, one in ours.named_parameters()}
        reference.values.grad, reference.queries.grad = theta["values"], theta["queries"]
        adam.step()
        if seed == 2:
            saved = {name: tensor.clone() for name, tensor in optimizer.state_dict().items()}
            optimizer = TeacherOptimizer(ours, plan)
            optimizer.load_state_dict(saved)
        optimizer.step(theta, 1.0)
        other.step(theta, 1.0)
    assert torch.equal(ours.values, reference.values) and torch.equal(ours.queries, reference.queries)
    assert not torch.allclose(levels.values, reference.values, atol=1e-3)
