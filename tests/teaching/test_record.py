"""Which options a resumed run must share with the one it goes on with."""

import dataclasses
import math

import pytest

from fairseq_l2t.teaching.record import ResumeError, TeachingRecord, refuse_other_options
from fairseq_l2t.testing.toy_lives import JUDGED, PLAN, trainer


@pytest.mark.parametrize("text", [False, True])  # l2t-train-teacher keeps its options as text, l2t-classify as they are
@pytest.mark.parametrize(
    ("name", "idle", "other"),
    [
        ("teacher_lr_shrink", 1.0, 0.5),
        ("coefficient_form", "diagonal", "smoothed"),
        ("stage_spread", 0.0, 4.0),
        ("split_seed", 0, 1),
    ],
)
def test_an_option_that_did_not_exist_has_no_effect(name, idle, other, text):
    def given(value):
        return {"lr": "1", name: str(value) if text else value}

    refuse_other_options({"lr": "1"}, given(idle))
    with pytest.raises(ResumeError, match=f"^--resume: .*: --{name.replace('_', '-')} {idle} then, {other} now$"):
        refuse_other_options({"lr": "1"}, given(other))
    with pytest.raises(ResumeError):  # it existed, and was used
        refuse_other_options(given(other), given(idle))


def test_any_other_option_must_be_the_same():
    refuse_other_options({"lr": "1"}, {"lr": "1"})
    with pytest.raises(ResumeError, match="--lr 1 then, 2 now; --seed None then, 3 now$"):
        refuse_other_options({"lr": "1"}, {"lr": "2", "seed": "3"})


@pytest.mark.parametrize(
    ("plan", "updates", "chosen", "told"),
    [
        (PLAN, 2, 2, "no student's life was completed"),  # 3 windows are one
        (JUDGED, 2, 0, "no student's life was completed"),
        (PLAN, 3, None, "no life that was completed has a measure"),
        (JUDGED, 3, None, "no life that was completed has a measure"),
        (JUDGED, 3, 3, None),
    ],
)
def test_there_is_always_a_teacher_and_what_it_is_is_told(tmp_path, caplog, plan, updates, chosen, told):
    """Where nothing could be judged, it is the last one; ``chosen`` None: measures that are no numbers."""
    measures = [math.nan] * 9 if chosen is None else [0.1, 0.1, 0.2, 0.2]
    subject = trainer(dataclasses.replace(plan, teacher_updates=updates), holdouts=measures)
    files = {}

    def save(path, states):
        files[path.name] = subject.teacher_update

    record = TeachingRecord(tmp_path, subject, {}, save, None)
    for _ in range(updates):
        record.make_update()
    record.finish()
    assert files == {"teacher.safetensors": updates if chosen is None else chosen, "teacher_last.safetensors": updates}
    warnings = [one.message for one in caplog.records if one.levelname == "WARNING"]
    assert (told in warnings[-1]) if told else warnings == []
