"""The files of a teacher training."""

import dataclasses
import math

import pytest

from fairseq_l2t.teaching.record import TeachingRecord
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
