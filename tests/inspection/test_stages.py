import numpy as np
import pytest

from fairseq_l2t.inspection import InspectionError, choose_states, read_training_log
from fairseq_l2t.storage import load_teacher
from tests.inspection.files import log_line, state, write_log, write_teacher


@pytest.fixture
def teacher_file(tmp_path):
    return load_teacher(write_teacher(tmp_path / "teacher"))


def test_states_of_the_log_are_averaged_over_lives_and_interpolated(tmp_path, teacher_file):
    source = choose_states(teacher_file, read_training_log(write_log(tmp_path / "log")))
    assert "12 states of 3 student lives" in source.description
    # Lives 0, 1, 2 add 0, 0.1, 0.2 to the training accuracy; the last known point is at progress 0.75.
    expected = [
        [0.0, 0.1, 1.0, 0.0, 1.0],
        [0.125, 0.1625, 0.925, 0.05, 0.9375],
        [1.0, 0.475, 0.55, 0.3, 0.625],
    ]
    np.testing.assert_allclose(source.at([0.0, 0.125, 1.0]), expected, atol=1e-12)


def test_states_recorded_in_the_teacher_file(tmp_path):
    teacher_file = load_teacher(write_teacher(tmp_path / "t", {"states": [state(0.0), state(1.0)]}))
    source = choose_states(teacher_file, None)
    assert "recorded in the teacher file at training (2 points)" in source.description
    np.testing.assert_allclose(source.at([0.5]), [[0.5, 0.25, 0.7, 0.2, 0.75]])


def test_states_inside_a_window(tmp_path, teacher_file):
    lines = [log_line(0, 1.0), log_line(1, 1.0)]
    for line in lines:
        line["states"] = [state(0.0), {**state(0.5), "train_accuracy": 0.9}, *line["states"]]
    source = choose_states(teacher_file, read_training_log(write_log(tmp_path / "log", lines)))
    assert "6 states of" in source.description
    assert source.progress.tolist() == [0.0, 0.5, 1.0]
    assert source.at([0.5])[0, 1] == pytest.approx(0.9)


def test_a_log_without_states_leaves_the_next_source(tmp_path, teacher_file):
    line = log_line(0, 0.0)
    del line["states"]
    source = choose_states(teacher_file, read_training_log(write_log(tmp_path / "log", [line])))
    assert source.description.startswith("ASSUMED")


def test_assumed_states_say_so(teacher_file):
    source = choose_states(teacher_file, None)
    assert source.description.startswith("ASSUMED")
    chance = 1 / teacher_file.teacher.entries
    np.testing.assert_allclose(source.at([0.0]), [[0.0, chance, 1.0, chance, 1.0]])
    np.testing.assert_allclose(source.at([1.0]), [[1.0, 0.6, 0.3, 0.6, 0.3]])


@pytest.mark.parametrize("value", [None, "0.5", True, -0.1, 1.5, float("nan")])
def test_states_outside_their_range_are_named(tmp_path, teacher_file, value):
    bad = log_line(0, 0.0, states=[{**state(0.0), "dev_loss": value}])
    with pytest.raises(InspectionError, match="state feature 'dev_loss'"):
        choose_states(teacher_file, read_training_log(write_log(tmp_path / "log", [bad])))


def test_log_of_a_resumed_and_of_a_killed_run(tmp_path):
    lines = [log_line(0, 0.0), log_line(1, 0.25), log_line(1, 0.25, measure=0.9), {"note": "resumed"}]
    log = read_training_log(write_log(tmp_path / "log", lines, tail='{"teacher_update": 2, "mea'))
    assert log.column("measure").tolist() == [0.2, 0.9]
    assert np.isnan(log.column("holdout_measure")).tolist() == [False, True]
    assert log.notes == (
        "left out 1 of the lines, because they are not records of teacher updates: line 4",
        "line 5 is incomplete and was left out",
    )


def test_foreign_lines_of_a_log_are_noted_and_left_out(tmp_path):
    """What a resumed run of before appended to a cut line, bytes that are no text, and fields of another type."""
    glued = b'{"teacher_update": 1, "stu{"teacher_update": 1, "measure": 0.5}'
    bad = [glued, b"\xff\xfe", b"[1]", b'{"teacher_update": true}', b'{"teacher_update": -1}', b"1" * 5000]
    bad += [b'{"teacher_update": 1, "states": 5}', b'{"teacher_update": 1, "student_life": []}', b"[" * 100_000]
    path = write_log(tmp_path / "log", [log_line(0, 0.0)])
    path.write_bytes(path.read_bytes() + b"\n".join([*bad, b'{"teacher_update": 2, "measure": 0.7}', b""]))
    log = read_training_log(path)
    assert log.column("teacher_update").tolist() == [0, 2]
    assert log.notes == (
        "left out 9 of the lines, because they are not records of teacher updates: line 2, 3, 4, 5, 6, ...",
    )


def test_bad_logs(tmp_path):
    for text, message in (
        ('{"teacher_update": 0\n', "no line with a teacher_update; expected a log of l2t-train-teacher"),
        ("[1]\n", "no line with a teacher_update"),
        ("", "no line with a teacher_update"),
    ):
        (tmp_path / "log").write_text(text)
        with pytest.raises(InspectionError, match=message):
            read_training_log(tmp_path / "log")
    with pytest.raises(InspectionError, match="No such file"):
        read_training_log(tmp_path / "absent")
