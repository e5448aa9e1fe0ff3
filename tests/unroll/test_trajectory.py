"""Forward updates: records, replays, invalid arguments."""

import copy
import math
from functools import partial

import pytest
import torch

from fairseq_l2t.core import NonFiniteError, Teacher, Trajectory, student_gradient, unroll
from fairseq_l2t.testing.differentiable_rules import differentiable_clipping, differentiable_rule
from fairseq_l2t.testing.toy_student import MODELS, RecordedState, ToyStudent
from fairseq_l2t.unroll.trajectory import advance, replay
from fairseq_l2t.unroll.update_rules import NAG, SGD, Adagrad, Adam

RULES = [SGD(0.9, 0.02), NAG(0.8, 0.02), Adam(0.9, 0.98, weight_decay=0.02), Adagrad(0.02)]


def unrolled(student: ToyStudent, steps: int = 3):
    """Return a trajectory of ``steps`` updates under a new teacher."""
    return unroll(student, Teacher.for_student(student), steps)


@pytest.mark.parametrize("model", MODELS)
def test_replays_are_bit_equal(model):
    # Recorded omega_t, batch and Phi_t with replayed dropout lead to the next omega exactly.
    student = ToyStudent(model, Adam(), max_norm=0.2, cross_entropy_updates=1)
    steps = unrolled(student).steps
    ends = [step.omega for step in steps[1:]] + [student.omega.clone()]
    for step, end in zip(steps, ends, strict=True):
        student.set_omega(step.omega)
        gradient = student_gradient(student, step.batch, step.coefficients, step.update)
        clipped = student.clipping.apply(gradient)
        assert torch.equal(student.rule.apply(step.omega, step.buffers, clipped, step.size)[0], end)


def test_replay_control_another_mask_differs():
    student = ToyStudent("tanh")
    step = unrolled(student, 1).steps[0]
    student.set_omega(step.omega)
    masks = [student_gradient(student, step.batch, step.coefficients, update) for update in (0, 0, 1)]
    assert torch.equal(masks[0], masks[1])
    assert not torch.equal(masks[0], masks[2])


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_updates_follow_the_formulas(rule):
    student = ToyStudent("tanh", rule, max_norm=0.2)
    steps = unrolled(student, 4).steps
    omega, buffers, last = steps[0].omega, steps[0].buffers, student.omega.clone()
    for step in steps:
        student.set_omega(omega)
        gradient = student_gradient(student, step.batch, step.coefficients, step.update)
        gradient = differentiable_clipping(gradient, 0.2)
        omega, buffers = differentiable_rule(rule, omega, buffers, gradient, step.size)
    torch.testing.assert_close(omega, last, rtol=1e-11, atol=1e-13)


def test_two_unrolls_equal_one_long_unroll():
    short, long = ToyStudent("tanh", Adam()), ToyStudent("tanh", Adam())
    teacher = Teacher.for_student(short)
    unroll(short, teacher, 2)
    unroll(short, teacher, 3)
    unroll(long, teacher, 5)
    assert torch.equal(short.omega, long.omega)
    assert short.state.state_dict() == long.state.state_dict()


def test_restart_repeats_and_another_seed_does_not():
    student, ends = ToyStudent("tanh", Adam()), []
    for seed in (1, 1, 2):
        student.restart(seed)
        unrolled(student)
        ends.append(student.omega.clone())
    assert torch.equal(ends[0], ends[1])
    assert not torch.equal(ends[0], ends[2])


def test_the_record_of_a_step():
    student = ToyStudent("tanh", Adam(), cross_entropy_updates=1)
    start = student.omega.clone()
    trajectory = unrolled(student)
    assert [step.update for step in trajectory.steps] == [0, 1, 2]
    assert [step.state is None for step in trajectory.steps] == [True, False, False]
    assert [step.coefficients is None for step in trajectory.steps] == [True, False, False]
    assert torch.equal(trajectory.steps[0].omega, start)
    assert student.update == 3
    # recorded vectors are copies, independent of the student
    student.set_omega(torch.zeros_like(start))
    assert torch.equal(trajectory.steps[0].omega, start)
    for step in trajectory.steps[1:]:
        expected = trajectory.teacher(step.state)
        assert torch.equal(step.coefficients, expected)
        assert not step.coefficients.requires_grad


def test_training_measures_are_observed():
    student = ToyStudent("tanh")
    before = student.state.state_dict()
    unrolled(student, 3)  # the loss of the first update is above chance level, so that the state shows 1
    after = student.state.state_dict()
    assert {name for name in before if before[name] != after[name]} == {"train_accuracy", "train_loss"}


def test_caller_randomness_is_restored():
    student = ToyStudent("tanh")
    generator = torch.get_rng_state()
    unrolled(student)
    assert torch.equal(torch.get_rng_state(), generator)


@pytest.mark.parametrize("steps", [0, -1])
def test_too_few_steps(steps):
    with pytest.raises(ValueError, match=f"--unroll-length: {steps}; expected at least 1"):
        unrolled(ToyStudent("tanh"), steps)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_bad_parameters_name_update_and_tensor(bad):
    student = ToyStudent("tanh")
    unrolled(student, 2)
    with torch.no_grad():
        student.model.output.bias[3] = bad
    with pytest.raises(NonFiniteError, match=r"student update 2: gradient of embedding\.weight is not"):
        unrolled(student, 1)
    assert student.update == 2


def test_bad_coefficients_are_noticed():
    student = ToyStudent("tanh")
    teacher = Teacher.for_student(student)
    with torch.no_grad():
        teacher.values[1] = math.nan
    with pytest.raises(NonFiniteError, match="student update 0"):
        unroll(student, teacher, 1)


def test_micro_batches_are_summed_before_they_are_divided():
    # An update of two micro-batches divides the sum of both by all target tokens; it is not a mean of means.
    make = partial(ToyStudent, "relu", update_freq=2)
    student = make()
    student.model.dropout.p = 0.0  # each micro-batch has its own masks
    phi = torch.full((student.coefficient_count,), 0.1, dtype=torch.float64)
    batch = student.next_batch()
    whole = student_gradient(student, batch, phi, 0)
    parts = [student_gradient(student, [part], phi, 0) * part.tokens for part in batch]
    torch.testing.assert_close(whole, sum(parts) / sum(part.tokens for part in batch), rtol=1e-12, atol=1e-15)


def trajectory_in_midlife(rule, model: str = "tanh") -> Trajectory:
    """Return updates 2 to 4 of a life, so that buffers are not zero; update 2 uses plain cross-entropy."""
    student = ToyStudent(model, rule, max_norm=0.2, cross_entropy_updates=3)
    advance(student, Teacher.for_student(student), 2)
    return unrolled(student)


def moved_teacher(trajectory: Trajectory) -> Teacher:
    """Return a teacher that differs from that of ``trajectory``."""
    teacher = copy.deepcopy(trajectory.teacher)
    with torch.no_grad():
        teacher.values.mul_(torch.linspace(0.5, 2.0, teacher.keys))
        teacher.queries.add_(0.3)
    return teacher


def snapshot(student: ToyStudent):
    """Return the position in a student's life, in a form that compares by value."""
    buffers = [buffer.tolist() for buffer in student.buffers]
    return buffers, student.update, student.state.state_dict(), torch.get_rng_state().tolist()


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_replay_under_the_same_teacher_equals_the_unroll(rule, model):
    trajectory = trajectory_in_midlife(rule, model)
    student, last, before = trajectory.student, trajectory.student.omega.clone(), snapshot(trajectory.student)
    assert torch.equal(replay(trajectory, trajectory.teacher), last)
    assert torch.equal(student.omega, last)
    assert snapshot(student) == before
    assert not torch.equal(replay(trajectory, moved_teacher(trajectory)), last)
    assert snapshot(student) == before


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_replay_under_another_teacher_equals_a_new_life_with_the_recorded_states(rule):
    trajectory = trajectory_in_midlife(rule)
    teacher, states = moved_teacher(trajectory), [step.state for step in trajectory.steps[1:]]

    def new_life(recorded: list[torch.Tensor]) -> torch.Tensor:
        student = ToyStudent("tanh", rule, max_norm=0.2, cross_entropy_updates=3)
        student.state = RecordedState([None, None, None, *recorded])
        return unroll(student, teacher, 5).student.omega

    found = replay(trajectory, teacher)
    assert torch.equal(found, new_life(states))
    # control: other states give another result
    assert not torch.equal(found, new_life([states[0], states[1] + 0.1]))


def test_replay_does_not_change_the_trajectory():
    trajectory = trajectory_in_midlife(Adam())
    before = [(step.omega.clone(), *(buffer.clone() for buffer in step.buffers)) for step in trajectory.steps]
    theta = copy.deepcopy(trajectory.teacher.state_dict())
    result = replay(trajectory, moved_teacher(trajectory))
    trajectory.student.set_omega(torch.zeros_like(result))
    assert float(result.norm()) > 0  # a copy
    for step, vectors in zip(trajectory.steps, before, strict=True):
        assert all(map(torch.equal, (step.omega, *step.buffers), vectors))
    assert all(torch.equal(part, theta[name]) for name, part in trajectory.teacher.state_dict().items())
