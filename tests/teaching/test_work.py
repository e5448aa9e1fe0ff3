"""Counted work of a run, its estimate of the time that remains, and the lines that show it."""

import dataclasses
import io
import logging

import pytest

from fairseq_l2t.teaching.progress_display import (
    FIRST_LINE_SECONDS,
    LINE_SECONDS,
    ProgressLines,
    in_words,
    step_display,
)
from fairseq_l2t.teaching.work import COST_OF_STEP_BACK, RunWork, Steps, steps_of
from fairseq_l2t.testing.toy_lives import JUDGED, PLAN, run, trainer


@pytest.mark.parametrize(
    ("changes", "warmup"),
    [
        ({}, 0),
        ({"holdout_lives": 2}, 0),
        ({"unroll_length": 8, "holdout_lives": 1}, 0),
        ({"cross_entropy_updates": 2, "backward_length": 1}, 2),
        ({"cross_entropy_updates": 2, "holdout_lives": 1, "backward_length": 2}, 2),
    ],
    ids=str,
)
def test_the_work_of_a_run_is_known_beforehand(changes, warmup):
    """After every teacher update the steps that were made are those that were foretold."""
    plan = dataclasses.replace(PLAN, **changes)
    subject, made = trainer(plan, warmup=warmup), {"life": 0, "judging life": 0, "sweep": 0}

    def on_step(kind, update):
        made[kind] += 1
        assert 1 <= update <= plan.total_updates

    subject.on_step = on_step
    for update in range(1, 6):
        run(subject, 1)
        assert steps_of(plan, update) == Steps(made["life"] + made["judging life"], made["sweep"])
    assert (made["judging life"] > 0) == (plan.holdout_lives > 0)


class Clock:
    """A clock that is set by hand."""

    seconds = 0.0

    def __call__(self):
        return self.seconds


def test_the_time_left_is_estimated_from_the_first_student_update_on():
    plan, clock = dataclasses.replace(PLAN, unroll_length=8, teacher_updates=2), Clock()
    work = RunWork(plan, 0, clock)
    assert work.seconds_left is None and work.share == 0
    clock.seconds += 1
    work.step("life", 1)
    # 15 updates and 16 steps back are left, none of which was timed.
    assert work.seconds_left == 15 + 16 * COST_OF_STEP_BACK
    assert work.place == "teacher update 1 of 2, student update 1 of 8"
    for update in range(2, 9):
        clock.seconds += 1
        work.step("life", update)
    clock.seconds += 5
    work.step("sweep", 8)
    assert work.seconds_left == 8 + 15 * 5
    assert work.seconds_left_of_update == 7 * 5
    assert work.place == "teacher update 1 of 2, back at update 8 of 8"
    assert work.share == pytest.approx((8 + COST_OF_STEP_BACK) / (16 + 16 * COST_OF_STEP_BACK))
    work.step("life", 1)  # the life ended in NaN, and another begins: nothing counts twice
    assert work.seconds_left < 8 + 16 * 5
    work.begin_update(2)
    assert (work.share, work.seconds_left) == (1.0, 0.0)


def test_a_resumed_run_begins_where_it_was():
    work = RunWork(JUDGED, 4, Clock())
    assert 0 < work.share < RunWork(JUDGED, 5, Clock()).share < 1
    assert RunWork(JUDGED, 7, Clock()).share == 1


def test_a_line_comes_after_seconds_and_then_every_half_minute(caplog):
    clock = Clock()
    lines = ProgressLines(clock)
    with caplog.at_level(logging.INFO):
        for second in range(70):
            clock.seconds = float(second)
            lines.show(second / 100, f"second {second}", 100.0 - second)
    due = [FIRST_LINE_SECONDS, FIRST_LINE_SECONDS + LINE_SECONDS, FIRST_LINE_SECONDS + 2 * LINE_SECONDS]
    assert caplog.messages == [f"progress: {at:.1f} %, second {at:.0f}, about {100 - at:.0f} s left" for at in due]


def test_estimates_in_words():
    told = [in_words(seconds) for seconds in (None, 4.4, 180.0, 7200.0)]
    assert told == ["", ", about 4 s left", ", about 3 min left", ", about 2.0 h left"]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_gets_a_bar_and_a_file_does_not(monkeypatch):
    for stream, has_bar in ((Terminal(), True), (io.StringIO(), False)):
        monkeypatch.setattr("sys.stderr", stream)
        with step_display(bar=True) as shown:
            shown.show(0.5, "student update 4 of 8", 3.0)
            if has_bar:
                shown._bar.refresh()
        assert ("student update 4 of 8, about 3 s left" in stream.getvalue()) == has_bar
        assert (" 50%|" in stream.getvalue()) == has_bar
