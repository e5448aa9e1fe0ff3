"""Several lives in a teacher update: the mean of their hypergradients, lives that fail, and their statistics."""

import dataclasses
import math
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from fairseq_l2t.core import NonFiniteError
from fairseq_l2t.teaching.options.declaration import OptionError
from fairseq_l2t.teaching.processes import Message
from fairseq_l2t.teaching.shared_run import refuse_idle_processes
from fairseq_l2t.testing.toy_lives import PLAN, run, trainer

WHOLE = dataclasses.replace(PLAN, unroll_length=8)
THREE = dataclasses.replace(WHOLE, lives_per_update=3)
JUDGING_SEED = dataclasses.replace(THREE, holdout_lives=1).holdout_seeds[0]


def hypergradients(subject, updates=1):
    """Return the hypergradient of each update of a trainer whose teacher does not move, and the reports."""
    seen = []
    subject._optimizer.step = lambda theta, norm: seen.append(theta)
    return seen, run(subject, updates)


def test_a_teacher_update_is_by_the_mean_over_lives():
    """Three lives of one update are those of three updates of one life; the control is a life less."""
    (mean,), (report,) = hypergradients(trainer(THREE))
    single, reports = hypergradients(trainer(WHOLE), 3)
    for name, part in mean.items():
        torch.testing.assert_close(part, sum(one[name] for one in single) / 3, rtol=1e-12, atol=0.0)
        assert not torch.allclose(part, sum(one[name] for one in single[:2]) / 2, rtol=1e-3)
    assert [(one.life, one.hypergradient_norm) for one in report.lives] == [
        (life, one.hypergradient_norm) for life, one in enumerate(reports)
    ]
    assert math.isclose(report.measure, sum(one.measure for one in reports) / 3, rel_tol=1e-12)
    distances = sum(float((one[name] - mean[name]).square().sum()) for one in single for name in mean)
    assert math.isclose(report.hypergradient_standard_error, math.sqrt(distances / 6), rel_tol=1e-9)
    assert reports[0].hypergradient_standard_error is None


def test_lives_are_numbered_through_the_updates():
    reports = run(trainer(THREE), 2)
    assert [[life.life for life in report.lives] for report in reports] == [[0, 1, 2], [3, 4, 5]]
    assert [report.student_life for report in reports] == [0, 3]


def test_a_life_that_ends_in_nan_is_left_out_of_the_mean_and_named():
    subject, told = trainer(THREE, bad_lives=[WHOLE.seed + 1]), []
    subject._on_bad_window = told.append
    (mean,), (report,) = hypergradients(subject)
    single, _ = hypergradients(trainer(WHOLE), 3)
    for name, part in mean.items():
        torch.testing.assert_close(part, (single[0][name] + single[2][name]) / 2, rtol=1e-12, atol=0.0)
    assert [life.life for life in report.lives] == [0, 2]
    assert len(told) == 1 and str(told[0]).startswith("life 1: ") and "left out of the mean" in str(told[0])


def test_an_update_whose_lives_all_end_in_nan_is_one_bad_window():
    bad = [WHOLE.seed + life for life in range(6)]
    subject = trainer(THREE, bad_lives=bad)
    (report,) = run(subject, 1)
    assert [life.life for life in report.lives] == [6, 7, 8]
    subject = trainer(dataclasses.replace(THREE, max_bad_steps=2), bad_lives=bad)
    before = subject.teacher.values.detach().clone()
    with pytest.raises(NonFiniteError):
        run(subject, 1)
    assert torch.equal(subject.teacher.values, before)


def test_a_run_of_several_lives_is_resumed_to_the_bit():
    whole = trainer(THREE)
    run(whole, 3)
    begun, resumed = trainer(THREE), trainer(THREE, seed=7)
    run(begun, 1)
    assert not torch.equal(begun.teacher.values, whole.teacher.values)
    tensors, values = begun.state_dict()
    resumed.load_state_dict({name: tensor.clone() for name, tensor in tensors.items()}, values)
    run(resumed, 2)
    assert torch.equal(resumed.teacher.values, whole.teacher.values)


class ThreadProcesses:
    """Processes that are threads; they exchange bytes as torchrun's do.

    One runs at a time, between two exchanges, because they share torch's generator of random numbers.
    """

    on_host = 1

    def __init__(self, rank, shared, barrier, turn):
        self.rank, self.size = rank, len(shared)
        self._shared, self._barrier, self._turn = shared, barrier, turn

    def gather(self, message):
        self._shared[self.rank] = message.to_bytes()
        self._turn.release()
        self._barrier.wait(timeout=60)
        found = [Message.from_bytes(data) for data in self._shared]
        self._barrier.wait(timeout=60)
        self._turn.acquire()
        return found

    def from_first(self, message):
        return self.gather(message or Message())[0]


def run_in_processes(size, plan, updates, **given):
    """Return the trainer and the reports of each process."""
    shared = [b""] * size, threading.Barrier(size), threading.Lock()
    subjects = [trainer(plan, processes=ThreadProcesses(rank, *shared), **given) for rank in range(size)]

    def live(subject):
        with shared[-1]:
            return run(subject, updates)

    with ThreadPoolExecutor(size) as pool:
        return subjects, list(pool.map(live, subjects))


@pytest.mark.parametrize(
    ("size", "bad"), [(3, []), (2, [WHOLE.seed + 1]), (3, [WHOLE.seed + 2, WHOLE.seed + 3]), (2, [JUDGING_SEED + 1])]
)
def test_the_number_of_processes_changes_no_bit(size, bad):
    """Also where a life of one process alone ends in NaN, and where it judges."""
    plan = dataclasses.replace(THREE, holdout_lives=2, teacher_lr_shrink=0.5)
    alone = trainer(plan, bad_lives=bad)
    reports = run(alone, 3)
    subjects, of_process = run_in_processes(size, plan, 3, bad_lives=bad)
    for subject, told in zip(subjects, of_process, strict=True):
        assert told == reports
        tensors, values = subject.state_dict()
        assert values == alone.state_dict()[1]
        assert all(torch.equal(tensor, tensors[name]) for name, tensor in alone.state_dict()[0].items())
    assert not torch.equal(trainer(plan).teacher.values, alone.teacher.values)


def test_more_processes_than_lives_are_refused():
    processes = [ThreadProcesses(0, size * [b""], None, None) for size in (3, 4)]
    refuse_idle_processes(processes[0], THREE)
    expected = "torchrun started 4 processes; expected at most --lives-per-update, which is 3"
    with pytest.raises(OptionError, match=expected):
        refuse_idle_processes(processes[1], THREE)


def test_windows_shorter_than_a_life_are_refused():
    expected = "--unroll-length: 3; expected 8, a whole life .* because --lives-per-update is 3"
    with pytest.raises(OptionError, match=expected):
        dataclasses.replace(PLAN, lives_per_update=3)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.int64, torch.bool])
def test_a_message_arrives_as_it_was_sent(dtype):
    tensors = {"a": torch.arange(6).reshape(2, 3).to(dtype), "empty": torch.zeros(0, dtype=dtype)}
    values = {"x": [1, 0.1, None, math.inf], "text": "ä"}
    found = Message.from_bytes(Message(tensors, values).to_bytes())
    assert found.values == values
    assert {name: (one.dtype, one.tolist()) for name, one in found.tensors.items()} == {
        name: (one.dtype, one.tolist()) for name, one in tensors.items()
    }
