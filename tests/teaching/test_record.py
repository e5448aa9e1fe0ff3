"""The files of a teacher training."""

import dataclasses
import math

import pytest

from fairseq_l2t.loss.teacher import Teacher
from fairseq_l2t.storage import TeacherSettings, Vocabulary, save_teacher
from fairseq_l2t.teaching.options.comparison import ResumeError
from fairseq_l2t.teaching.record import TeachingRecord, saved_run
from fairseq_l2t.testing.toy_lives import JUDGED, PLAN, trainer


@pytest.mark.parametrize(
    ("plan", "updates", "chosen", "told"),
    [
        (PLAN, 2, 2, "no life of a student was completed"),  # 3 windows are one
        (JUDGED, 2, 0, "no life of a student was completed"),
        (PLAN, 3, None, "no completed life has a finite measure"),
        (JUDGED, 3, None, "no completed life has a finite measure"),
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


@pytest.mark.parametrize("name", ["teacher.safetensors", "teacher_last.safetensors"])
def test_a_teacher_without_its_run_state_is_not_overwritten(tmp_path, name):
    """One of a run that was killed in its first update is; another file of that name is not."""

    def begin():
        return saved_run(tmp_path, resume=False, check=lambda tensors, values: None)

    def write(updates):
        settings = TeacherSettings(1.0, 0.0, 10, 0, {"teacher_update": updates})
        save_teacher(tmp_path / name, Teacher(("progress",), 3, keys=2), Vocabulary.of_symbols("abc"), settings)

    for updates in (0, 1):
        write(updates)
        assert begin() is None
    write(2)
    with pytest.raises(ResumeError, match=f"contains {name} of another run, without a run state"):
        begin()
    (tmp_path / name).write_bytes(b"a student")
    with pytest.raises(ResumeError, match=f"contains {name} of another run, without a run state"):
        begin()
