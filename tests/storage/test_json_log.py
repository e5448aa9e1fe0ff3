"""Logs of runs: what a killed run, a full disk or another program leaves in them."""

import json
import os

import pytest

from fairseq_l2t.storage.json_log import JsonLog, TeacherLogRecord
from tests.storage.files import files_end_at


def log_of(path):
    return JsonLog(path, TeacherLogRecord, "teacher_update")


def line(update, **more):
    return json.dumps({"teacher_update": update, **more}) + "\n"


def test_a_cut_last_line_is_left_out_and_later_records_follow_whole_ones(tmp_path, caplog):
    path = tmp_path / "log.jsonl"
    for stump in ('{"teacher_update": 3, "stu', '{"teacher_update"', "{", "\xe4"):
        path.write_text(line(1) + line(2) + stump, encoding="latin-1")
        log = log_of(path)
        assert log.keep_until(5) == [1, 2]
        log.append({"teacher_update": 3})
        assert path.read_text() == line(1) + line(2) + line(3)
    assert caplog.records == [] and os.listdir(tmp_path) == ["log.jsonl"]


def test_a_last_record_without_its_newline_is_whole(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text(line(1) + line(2).rstrip())
    assert log_of(path).keep_until(2) == [1, 2] and path.read_text() == line(1) + line(2)


def test_records_are_matched_by_their_update(tmp_path, caplog):
    """A foreign line does not shift later ones; updates that are made again are left out."""
    path = tmp_path / "log.jsonl"
    text = line(2, old=1) + "note\n" + line(1) + line(2) + "\n" + line(3)
    path.write_text(text)
    assert log_of(path).keep_until(2) == [1, 2]
    assert path.read_text() == line(1) + line(2)
    assert (tmp_path / "log_damaged.jsonl").read_text() == text
    (warning,) = caplog.messages
    assert warning.startswith(f"{path}: not a record with a field teacher_update: line 2; left out, the whole file is")


@pytest.mark.parametrize("bad", [b"\xff\n", b'{"teacher_update": "1"}\n', b"9" * 5000 + b"\n"])
def test_bytes_that_are_no_record_are_named(tmp_path, caplog, bad):
    path = tmp_path / "log.jsonl"
    path.write_bytes(bad + line(1).encode())
    assert log_of(path).keep_until(1) == [1]
    assert str(path) in caplog.text and (tmp_path / "log_damaged.jsonl").read_bytes() == bad + line(1).encode()


def test_a_full_disk_names_the_log(tmp_path):
    path = tmp_path / "log.jsonl"
    log = log_of(path)
    log.append({"teacher_update": 1})
    with files_end_at(len(line(1)) + 5), pytest.raises(OSError, match=r"log\.jsonl") as raised:
        log.append({"teacher_update": 2})
    assert raised.value.filename == str(path)
    assert log_of(path).keep_until(2) == [1]
    path.unlink()
    path.symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"No space left on device: '.*log\.jsonl'"):
        log.append({"teacher_update": 2})
    with pytest.raises(OSError, match=r"not a regular file: '.*log\.jsonl'"):
        log_of(path).keep_until(2)
