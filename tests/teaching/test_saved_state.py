"""Run states of a teacher training in which one value or tensor was changed: the previous state, or a refusal."""

import dataclasses
import math

import pytest
import torch

from fairseq_l2t.storage import RunStateError, load_run_state, save_run_state
from fairseq_l2t.storage.run_state import DAMAGED_NAME, NEWEST_NAME, PREVIOUS_NAME
from fairseq_l2t.teaching.options.comparison import ResumeError
from fairseq_l2t.teaching.record import TeachingRecord, require_run, saved_run
from fairseq_l2t.teaching.saved_state import StudentValues, check_of
from fairseq_l2t.testing import toy_lives
from fairseq_l2t.testing.toy_lives import trainer
from tests.storage.edits import WRONG, edited_tensors, edited_values

PLAN = dataclasses.replace(toy_lives.PLAN, teacher_keys=3)  # those of the trainer's teacher
JUDGED = dataclasses.replace(PLAN, holdout_lives=2)
BACKTRACKED = dataclasses.replace(JUDGED, teacher_lr_shrink=0.5)
OPTIONS = {"lr": 0.1, "task": "translation"}
CHECK = check_of(StudentValues)
FEW = ["text\nof two lines", 10**400]
"""Wrong values for the options, which are all compared in the same way."""


def record(folder, plan=PLAN, saved=None, holdouts=None):
    subject = trainer(plan, holdouts=holdouts)
    return TeachingRecord(folder, subject, OPTIONS, lambda path, states: None, saved, fingerprints={"data": 64 * "a"})


def states_of(folder, plan, updates, holdouts=None):
    """Two whole states of a run, the previous one and the newest."""
    run = record(folder, plan, holdouts=holdouts)
    for _ in range(updates):
        run.make_update()
    (folder / NEWEST_NAME).rename(folder / "newest")
    previous = load_run_state(folder, CHECK)
    (folder / "newest").rename(folder / NEWEST_NAME)
    return previous, load_run_state(folder, CHECK)


def outcome(folder, plan, tensors, values):
    """What a resumed run does with an edited state: "previous", its refusal, or the teacher update it makes next."""
    try:
        CHECK(tensors, values)
    except ValueError as error:
        assert "\n" not in str(error)
        return "previous"
    try:
        run = record(folder, plan, (tensors, values))
    except ResumeError as error:
        assert "\n" not in str(error)
        return str(error)
    return run.trainer.run_update(lambda: None).teacher_update


CASES = [
    (PLAN, 4, None),
    (JUDGED, 3, None),
    # The second judgement is worse than the first: the teacher goes back to the best one.
    (BACKTRACKED, 4, [0.5, 0.5, 0.1, 0.1]),
    (dataclasses.replace(PLAN, unroll_length=8, lives_per_update=2), 3, None),
]


@pytest.mark.parametrize(
    ("plan", "updates", "holdouts"), CASES, ids=["windows", "judged", "gone back", "several lives"]
)
def test_no_edit_of_a_state_is_resumed(tmp_path, plan, updates, holdouts):
    _, (tensors, values) = states_of(tmp_path, plan, updates, holdouts)
    if plan is BACKTRACKED:
        assert values["rate_factor"] == 0.5 and "best.optimizer.word" in tensors
    edits = [(name, tensors, changed) for name, changed in value_edits(values)]
    edits += [(name, changed, values) for name, changed in edited_tensors(tensors)]
    found = {name: outcome(tmp_path, plan, *edited) for name, *edited in edits}
    assert all(one == "previous" or one.startswith("--resume: ") for one in found.values() if isinstance(one, str))
    accepted = {name for name, one in found.items() if isinstance(one, int)}
    assert sorted(accepted - set(accepted_of(values))) == []
    assert len(edits) > 600 and len(accepted) < 60
    assert outcome(tmp_path, plan, tensors, values) == updates + 1  # control: the state itself


def test_an_edited_state_gives_the_previous_one_with_a_warning(tmp_path, caplog):
    previous, (tensors, values) = states_of(tmp_path, PLAN, 2)
    (tmp_path / NEWEST_NAME).rename(tmp_path / "newest")
    save_run_state(tmp_path, *previous)
    save_run_state(tmp_path, tensors, {**values, "teacher_update": -1})
    caplog.clear()
    saved = saved_run(tmp_path, resume=True, check=CHECK)
    assert saved[1] == previous[1] and saved[1]["teacher_update"] == 1
    (warning,) = [one.getMessage() for one in caplog.records if one.levelname == "WARNING"]
    assert "\n" not in warning and "teacher_update: -1; input should be greater than or equal to 0" in warning
    assert f"resuming from {tmp_path / PREVIOUS_NAME}" in warning and (tmp_path / DAMAGED_NAME).exists()


def value_edits(values):
    compared = {name: values[name] for name in ("plan", "options")}
    rest = {name: value for name, value in values.items() if name not in compared}
    yield from ((name, {**compared, **changed}) for name, changed in edited_values(rest, WRONG))
    yield from ((name, {**rest, **changed}) for name, changed in edited_values(compared, FEW))


def accepted_of(values):
    """Edits that give another valid state, which nothing in the file contradicts."""
    yield from (f"best_holdout: is {value}" for value in (-1, 0, 1, -0.5, 2.5))
    yield from (f"bad_windows: is {value}" for value in (0, 1))
    yield from ("fingerprints: removed", "fingerprints: is None", "fingerprints: is {}", "fingerprints.data: removed")
    for number in (0, len(values["states"]) - 1):
        for feature in values["states"][0]:
            yield from (f"states.{number}.{feature}: is {value}" for value in (0, 1))
    measures = values["student"]["measures"] if values["student"] else ()
    yield from (f"student.measures.{name}: is {value}" for name in measures for value in (0, 1))
    if values["student"] is None:  # the next update begins new lives
        yield from ("states_end: is 0", "states_end: is 1", "life_is_spoilt: is True")
    yield from (f"states.{number}: removed" for number in (0, len(values["states"]) - 1))
    yield "states: shortened"
    if values["rate_factor"] < 1:  # the optimizer has made fewer steps
        yield "teacher_update: is 1"
    yield from ("best_update: is 0", "best_update: is 1")
    if values["life_is_spoilt"]:  # the student is discarded before the next window
        yield from ("student.update: is 0", "student.update: is 1", "states_end: is 1", "life: is 1")
        yield from (f"student.{name} with NaN" for name in ("omega", "buffer0", "buffer1"))


def test_both_states_edited_is_one_line(tmp_path):
    _, (tensors, values) = states_of(tmp_path, PLAN, 2)
    for _ in range(2):
        save_run_state(tmp_path, tensors, {**values, "teacher_update": -1})
    with pytest.raises(RunStateError, match=r"no run state to resume from: .*teacher_update: -1; .*; .*teacher_update"):
        saved_run(tmp_path, resume=True, check=CHECK)


def test_a_student_that_ended_in_nan_while_it_judged_is_resumed(tmp_path):
    """Its parameters are discarded before the next window."""
    _, (tensors, values) = states_of(tmp_path, JUDGED, 3)
    assert values["life_is_spoilt"]
    tensors["student.omega"] = torch.full_like(tensors["student.omega"], math.nan)
    CHECK(tensors, values)
    run = record(tmp_path, JUDGED, (tensors, values))
    assert run.make_update()[0].teacher_update == 4


def test_the_student_of_another_size_is_named(tmp_path):
    """Omega and buffers are shortened alike, so that only the student shows it."""
    _, (tensors, values) = states_of(tmp_path, PLAN, 1)
    short = {name: t[:-1] if name.startswith("student.") else t for name, t in tensors.items()}
    CHECK(short, values)
    with pytest.raises(ResumeError, match=r"^--resume: the run state does not fit this run: tensor student.omega: "):
        record(tmp_path, PLAN, (short, values))


def test_a_folder_without_a_run_is_not_resumed(tmp_path):
    folder = tmp_path / "mistyped"
    with pytest.raises(ResumeError, match=rf"^--resume: --save-dir {folder} contains no saved run of teacher training"):
        require_run(folder)
    assert not folder.exists()
    states_of(tmp_path, PLAN, 1)
    require_run(tmp_path)


def test_logs_are_cut_and_missing_records_told(tmp_path, caplog):
    states_of(tmp_path, PLAN, 3)
    log = tmp_path / "teacher_log.jsonl"
    first, second, third = log.read_text().splitlines(keepends=True)
    log.write_text(first + third + '{"teacher_update": 4, "stu')
    run = record(tmp_path, PLAN, saved_run(tmp_path, resume=True, check=CHECK))
    assert f"{log}: no record of 1 of the 3 teacher updates made, the first is 2" in caplog.text
    run.make_update()
    lines = log.read_text().splitlines(keepends=True)
    assert lines[:2] == [first, third] and lines[2].startswith('{"teacher_update": 4, "student_life"')
    assert len(lines) == 3
