"""The measure on dev stands beside a full window, and has its place in the budget."""

import math

import pytest

from fairseq_l2t.core import hypergradient, unroll
from fairseq_l2t.plugin.student.fairseq_student import FairseqStudent
from fairseq_l2t.plugin.teacher_run import TranslationObjective, TranslationStudents
from fairseq_l2t.plugin.teacher_run_options import TeacherRunOptions
from fairseq_l2t.teaching.run import TeachingRun
from fairseq_l2t.testing.tiny_students import make_student, spread_teacher
from fairseq_l2t.unroll.memory.budget import memory_plan
from fairseq_l2t.unroll.memory.packing import bytes_within
from fairseq_l2t.unroll.memory.peak import peak_bytes
from fairseq_l2t.unroll.memory.plan import LOST_BUDGET_SHARE, layout_for
from tests.end_to_end.settings import teacher_command

STEPS = 12


@pytest.fixture(scope="module")
def student(data_bin):
    return make_student(data_bin)


def measured(student):
    return student.dev_objective(pairs=4 * student.dev.teaching)[1]  # more than the graph of an update takes


def run_of(student, plan, counted_sweep=True):
    """Return the peak of a window, its measure on dev and its sweep, and the hypergradient."""
    student.restart(1)
    found = []

    def unrolled():
        found[:] = unroll(student, spread_teacher(student), STEPS, plan), None
        found[1] = measured(student)

    def swept():
        found[:] = [hypergradient(*found)]

    peak = peak_bytes(lambda: (unrolled(), swept())) if counted_sweep else peak_bytes(unrolled)
    return peak, found[0] if counted_sweep else hypergradient(*found)


def test_the_peak_stays_under_the_budget(student):
    reserve = peak_bytes(lambda: measured(student))
    state = (1 + len(student.buffers)) * student.omega.nbytes
    data = 2 * bytes_within(student.next_batch())  # batches differ
    usable = reserve + 2 * state + STEPS * data
    budget = math.ceil(usable / (1 - LOST_BUDGET_SHARE))
    # Beside the window stand parameters and optimizer state, which are the student's own.
    peak, found = run_of(student, memory_plan(budget, reserve=reserve))
    assert peak <= usable + state
    without, expected = run_of(student, memory_plan(budget), counted_sweep=False)
    assert without > usable + state
    assert all(found[name].equal(part) for name, part in expected.items())


def test_a_reserve_beyond_the_budget_is_refused():
    with pytest.raises(ValueError, match="--memory-budget: 40M; .* at least 56M"):
        layout_for(13, vector=2**20, buffers=2, budget=40 * 2**20, reserve=50 * 2**20)
    assert layout_for(13, vector=2**20, buffers=2, budget=40 * 2**20).slots == 7


@pytest.mark.parametrize(
    ("share", "told"),
    [
        (
            "1e-9",
            r"at least [0-9]+M \(default: half of the memory, times L2T_MEMORY_SHARE if set\)$",
        ),
        ("half", "^L2T_MEMORY_SHARE: half; expected a number above 0 and up to 1"),
    ],
)
def test_a_share_of_the_memory(data_bin, tmp_path, monkeypatch, share, told):
    monkeypatch.setenv("L2T_MEMORY_SHARE", share)

    def plan(*more):
        options = TeacherRunOptions.parse([*teacher_command(data_bin, *more), "--save-dir", str(tmp_path)])
        built = FairseqStudent(options.student)
        run = TeachingRun(
            options.setup, TranslationStudents(options, built), TranslationObjective(options, built), None
        )
        return run.trainer._windows._memory

    with pytest.raises(ValueError, match=told):
        plan()
    # A file takes as much as gradients take; and who says how much memory there is need not share it.
    assert plan("--keep-steps-in", "file").budget is None
    assert plan("--memory-budget", "1G").budget == 2**30
