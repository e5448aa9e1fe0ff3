"""The baselines of a learned loss: the initial teacher, and one that cannot see the state."""

import pytest
import torch

from fairseq_l2t.core import LossShape, Teacher
from fairseq_l2t.storage import load_teacher
from tests.end_to_end import preloaded
from tests.end_to_end.settings import RUN_FOLDER, log_lines, teacher_command

pytestmark = pytest.mark.slow
COMMAND = "l2t-train-teacher"


def trained(data_bin, folder, *more):
    result = preloaded.run(COMMAND, teacher_command(data_bin, *more), folder)
    return result, load_teacher(folder / RUN_FOLDER / "teacher.safetensors").teacher


def test_no_updates_give_the_initial_teacher(data_bin, tmp_path):
    more = ("--initial-coefficient", "0.3", "--loss-level", "sentence")
    result, teacher = trained(data_bin, tmp_path, "--teacher-updates", "0", *more)
    expected = Teacher(teacher.features, teacher.entries, initial_coefficient=0.3, seed=3)
    assert teacher.values.equal(expected.values) and teacher.queries.equal(expected.queries)
    assert "--teacher-updates 0: writing the initial teacher" in result.stdout
    # What a student under it takes its loss from.
    settings = load_teacher(tmp_path / RUN_FOLDER / "teacher.safetensors").settings
    assert settings.loss_shape == LossShape(4 / 0.3, level="sentence")
    assert not (tmp_path / RUN_FOLDER / "teacher_log.jsonl").exists()


def test_a_trained_teacher_is_not_made_the_initial_one(data_bin, tmp_path):
    command = teacher_command(data_bin, "--teacher-updates", "0")
    preloaded.run(COMMAND, command, tmp_path)
    initial = load_teacher(tmp_path / RUN_FOLDER / "teacher.safetensors").teacher
    result = preloaded.run(COMMAND, command, tmp_path, expect=2)
    assert "contains a run of teacher training; give --resume" in result.stderr
    # It goes on from there, and what it then is stays what it is.
    more = preloaded.run(COMMAND, [*teacher_command(data_bin, "--teacher-updates", "1"), "--resume"], tmp_path)
    assert "initial teacher" not in more.stdout
    trained_one = load_teacher(tmp_path / RUN_FOLDER / "teacher.safetensors").teacher
    assert not trained_one.values.equal(initial.values)
    again = preloaded.run(COMMAND, [*command, "--resume"], tmp_path)
    assert "initial teacher" not in again.stdout
    assert load_teacher(tmp_path / RUN_FOLDER / "teacher.safetensors").teacher.values.equal(trained_one.values)


def test_one_key_is_a_loss_that_is_the_same_in_every_state(data_bin, tmp_path):
    states = torch.rand(2, 5, generator=torch.Generator().manual_seed(1))
    for keys, same in (("1", True), ("5", False)):
        _, teacher = trained(data_bin, tmp_path / keys, "--teacher-updates", "1", "--teacher-keys", keys)
        first, second = (teacher(state[: len(teacher.features)].to(teacher.values)) for state in states)
        assert first.equal(second) is same
        assert first.std() > 0  # learned, word by word


SMOOTHED = ("--coefficient-form", "smoothed", "--initial-off-diagonal", "0.02")


def test_a_smoothed_teacher_learns_its_last_coefficient(data_bin, tmp_path):
    _, teacher = trained(data_bin, tmp_path / "taught", "--teacher-updates", "2", *SMOOTHED)
    assert teacher.form == "smoothed"
    assert (teacher.values[-1] != 0.02).all()
    line = log_lines(tmp_path / "taught" / RUN_FOLDER)[0]
    assert line["phi_off_diagonal"] == pytest.approx(0.02) and line["phi_mean"] > 0.05
    _, fixed = trained(data_bin, tmp_path / "0", "--teacher-updates", "2", *SMOOTHED, "--teacher-off-diagonal-lr", "0")
    assert fixed.values[-1].tolist() == pytest.approx([0.02] * fixed.keys)
    assert not fixed.values[:-1].equal(Teacher(fixed.features, fixed.entries, seed=3).values)


def test_a_smoothed_teacher_resumes_where_it_was(data_bin, tmp_path):
    trained(data_bin, tmp_path / "whole", "--teacher-updates", "3", *SMOOTHED)
    trained(data_bin, tmp_path / "parts", "--teacher-updates", "1", *SMOOTHED)
    trained(data_bin, tmp_path / "parts", "--teacher-updates", "3", *SMOOTHED, "--resume")
    assert log_lines(tmp_path / "parts" / RUN_FOLDER) == log_lines(tmp_path / "whole" / RUN_FOLDER)
    teachers = [
        load_teacher(tmp_path / name / RUN_FOLDER / "teacher_last.safetensors").teacher for name in ("whole", "parts")
    ]
    assert teachers[0].values.equal(teachers[1].values) and teachers[0].queries.equal(teachers[1].queries)


def test_a_rate_of_what_is_not_there_is_refused(data_bin, tmp_path):
    command = teacher_command(data_bin, "--teacher-off-diagonal-lr", "0.1")
    result = preloaded.run(COMMAND, command, tmp_path, expect=2)
    assert "--teacher-off-diagonal-lr: 0.1; needs --coefficient-form smoothed" in result.stderr
