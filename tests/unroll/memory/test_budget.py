"""Sizes of a budget, its default, and the plan of a run."""

import logging
import re

import pytest
import torch

from fairseq_l2t.core import Teacher, hypergradient, unroll
from fairseq_l2t.testing.hypergradient_check import dev_gradient
from fairseq_l2t.testing.toy_student import ToyStudent
from fairseq_l2t.unroll.memory.budget import bytes_of, half_of_memory, memory_plan, plan_for
from fairseq_l2t.unroll.memory.stores import DeviceStore, FileStore, HostStore
from fairseq_l2t.unroll.update_rules import Adam

CPU = torch.device("cpu")
MEASURE_BYTES = 2**20


def measure():
    return torch.ones(MEASURE_BYTES // 4)


@pytest.fixture
def student():
    return ToyStudent(rule=Adam())


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1", 1), ("512M", 512 * 2**20), ("2G", 2**31), ("1.5k", 1536), ("3 GiB", 3 * 2**30), ("100MB", 100 * 2**20)],
)
def test_sizes(text, expected):
    assert bytes_of(text) == expected


NO_SIZES = ["", "0", "0M", "-1G", "M", "1X", "nan", "1e3", "512 M B", "inf", "9" * 400, "9" * 20 + "T"]


@pytest.mark.parametrize("text", NO_SIZES)
def test_invalid_sizes_are_refused(text):
    with pytest.raises(ValueError, match=f"--memory-budget: {re.escape(text)}; expected a size"):
        bytes_of(text)
    with pytest.raises(ValueError, match="^--memory-limit: "):
        bytes_of(text, "--memory-limit")


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"place": "disk"}, "--keep-steps-in: disk; expected one of device, host, file"),
        ({"place": "file"}, "--keep-steps-in: file needs a folder"),
        ({"keep_graphs": True}, "--keep-graphs: needs a --memory-budget"),
        ({"budget": 2**20, "keep_graphs": True, "place": "host"}, "--keep-graphs: .*--keep-steps-in is host"),
    ],
)
def test_invalid_plans_are_refused(more, expected):
    with pytest.raises(ValueError, match=expected):
        memory_plan(**more)


def test_half_of_the_machine():
    assert 2**26 < half_of_memory(CPU) < 2**50


def test_the_share_of_a_process(monkeypatch):
    whole = half_of_memory(CPU)
    monkeypatch.setenv("L2T_MEMORY_SHARE", "0.25")
    assert half_of_memory(CPU) == whole // 4


@pytest.mark.parametrize("share", ["0", "1.5", "nan", "half", ""])
def test_invalid_shares_are_refused(monkeypatch, share):
    monkeypatch.setenv("L2T_MEMORY_SHARE", share)
    with pytest.raises(ValueError, match=f"L2T_MEMORY_SHARE: {share}; expected a number above 0 and up to 1"):
        half_of_memory(CPU)


UNLIMITED = ["max\n", "9223372036854771712"]


@pytest.mark.parametrize(("text", "limited"), [("1073741824\n", True), *((text, False) for text in UNLIMITED)])
def test_half_of_the_limit_of_a_container(tmp_path, text, limited):
    path = tmp_path / "memory.max"
    path.write_text(text, encoding="ascii")
    found = half_of_memory(CPU, [tmp_path / "missing", path])
    assert found == (2**29 if limited else half_of_memory(CPU, []))


def test_a_given_budget_covers_the_measure(student, caplog):
    with caplog.at_level(logging.INFO):
        plan = plan_for(student, 13, 2**30, measure)
    assert (plan.budget, plan.reserve, plan.make_store) == (2**30, MEASURE_BYTES, DeviceStore)
    assert caplog.messages == ["--memory-budget: 1M of it are for the measure on dev"]


def test_without_a_budget_half_of_the_memory_is_the_limit(student):
    plan = plan_for(student, 13, None, pytest.fail)
    assert (plan.budget, plan.reserve) == (half_of_memory(CPU), 0)


@pytest.mark.parametrize("budget", [None, 2**30])
def test_host_and_file_leave_the_measure_out(student, tmp_path, budget):
    host = plan_for(student, 13, budget, pytest.fail, place="host")
    assert (host.budget, host.reserve, host.make_store) == (budget or half_of_memory(CPU), 0, HostStore)
    file = plan_for(student, 13, budget, pytest.fail, place="file", folder=tmp_path)
    assert (file.budget, file.reserve, file.make_store.func) == (budget, 0, FileStore)


def test_other_settings_reach_the_plan(student):
    plan = plan_for(student, 13, 2**30, measure, keep_graphs=True, for_differences=True)
    assert (plan.keep_graphs, plan.for_differences) == (True, True)
    plan = plan_for(student, 13, 2**30, measure)  # the control
    assert (plan.keep_graphs, plan.for_differences) == (False, False)


def test_a_budget_too_small_is_refused_before_any_update(student, monkeypatch):
    with pytest.raises(ValueError, match=r"^--memory-budget: 1M; a window of 13 updates .* at least 2M$"):
        plan_for(student, 13, 2**20, measure)
    assert plan_for(student, 13, 2 * 2**20, measure).budget == 2 * 2**20  # the control
    monkeypatch.setenv("L2T_MEMORY_SHARE", "1e-9")
    default = r"at least 1M \(default: half of the memory, times L2T_MEMORY_SHARE if set\)$"
    with pytest.raises(ValueError, match=default):
        plan_for(student, 13, None, measure)


def test_a_window_of_the_plan_gives_the_same_bits(student):
    def hypergradient_under(plan):
        student.restart(3)
        window = unroll(student, Teacher.for_student(student, seed=5), 4, plan)
        return hypergradient(window, dev_gradient(student))["values"]

    expected = hypergradient_under(None)
    assert torch.equal(hypergradient_under(plan_for(student, 4, 2**30, measure)), expected)
