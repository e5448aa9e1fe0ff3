"""l2t-train-teacher with what it does by default: whole lives, judged by others."""

import pytest

from fairseq_l2t.storage import load_teacher
from tests.end_to_end import preloaded
from tests.end_to_end.settings import MODEL, RUN_FOLDER, TRAINING, contents, log_lines, teacher_command

pytestmark = pytest.mark.slow
COMMAND = "l2t-train-teacher"
LIFE = ["--total-updates", "6", "--dev-batch", "8", "--log-format", "simple", "--save-dir", RUN_FOLDER]


def train(data_bin, folder, *more, expect=0):
    return preloaded.run(COMMAND, [str(data_bin), *MODEL, *TRAINING, *LIFE, *more], folder, expect)


def best_and_last(folder):
    return [
        load_teacher(folder / RUN_FOLDER / name).settings.extra["teacher_update"]
        for name in ("teacher.safetensors", "teacher_last.safetensors")
    ]


def test_eight_whole_lives(data_bin, tmp_path):
    result = train(data_bin, tmp_path)
    lines = log_lines(tmp_path / RUN_FOLDER)
    assert [line["student_update"] for line in lines] == [6] * 8
    assert all(line["holdout_measure"] > 0 for line in lines)
    best, last = best_and_last(tmp_path)
    assert last == 8 and f"(after teacher update {best}, held-back measure 0." in result.stdout
    assert "no life of a student was completed" not in result.stdout


def test_the_paper_on_the_generated_corpus(data_bin, tmp_path):
    """Algorithm 1: a new student and its whole life for each teacher update, by expected BLEU; the last one counts."""
    more = ["--preset", "paper", "--teacher-updates", "2", "--samples", "3", "--eval-bleu-remove-bpe", "sentencepiece"]
    result = preloaded.run(COMMAND, [str(data_bin), *MODEL, *TRAINING, *more, *LIFE[:2], *LIFE[4:]], tmp_path)
    lines = log_lines(tmp_path / RUN_FOLDER)
    assert [(line["student_life"], line["student_update"]) for line in lines] == [(0, 6), (1, 6)]
    assert all(line["states"][0]["progress"] == 0 and line["holdout_measure"] is None for line in lines)
    assert all(line["measure"] > 0 and line["hypergradient_norm"] > 0 for line in lines)
    files = contents(tmp_path / RUN_FOLDER)
    assert files["teacher.safetensors"] == files["teacher_last.safetensors"]
    assert "(the last one; --dev-holdout 0 judges none)" in result.stdout
    assert "tok:13a" in result.stdout and "life of a student: 6 updates, the first 0 with" in result.stdout


def test_shorter_windows_are_as_many_as_eight_lives_have(data_bin, tmp_path):
    train(data_bin, tmp_path, "--unroll-length", "3")
    assert [line["student_update"] for line in log_lines(tmp_path / RUN_FOLDER)] == [5, 6] * 8


@pytest.mark.parametrize(
    ("lives", "what"),
    [
        ("1", "the initial teacher, teacher_last.safetensors the last one"),
        ("0", "the last teacher"),
    ],
)
def test_a_life_that_was_not_completed(data_bin, tmp_path, lives, what):
    """Judging lives have chosen the initial teacher, which must not pass for a learned one."""
    result = train(data_bin, tmp_path, "--unroll-length", "3", "--teacher-updates", "1", "--holdout-lives", lives)
    told = f"{what}; give --teacher-updates 2 or more (2 windows of 3 updates are one life)"
    assert "WARNING | fairseq_l2t.teaching.record | no life of a student was completed, so" in result.stdout
    assert told in result.stdout
    assert best_and_last(tmp_path) == [1 - int(lives), 1]


def test_a_resumed_run_may_name_its_options_by_another_preset(data_bin, tmp_path):
    """Resolved values are compared, not preset names."""
    command = teacher_command(data_bin, "--teacher-updates", "1")
    whole = [*teacher_command(data_bin, "--teacher-updates", "2", "--validate-interval-updates", "3")]
    preloaded.run(COMMAND, whole, tmp_path / "whole")
    preloaded.run(COMMAND, [*command, "--validate-interval-updates", "3"], tmp_path / "run")
    preset = whole.index("--preset")
    left_out = [*whole[:preset], *whole[preset + 2 :], "--resume"]
    refused = preloaded.run(COMMAND, left_out, tmp_path / "run", expect=2)
    assert "--coefficient-form diagonal then, smoothed now" in refused.stderr
    assert "--unroll-length" not in refused.stderr
    assert "(options that are not given have the values of --preset whole-life)" in refused.stderr
    spelled_out = [
        "--coefficient-form",
        "diagonal",
        "--loss-level",
        "token",
        "--objective",
        "likelihood",
        "--stage-spread",
        "0",
        "--holdout-lives",
        "0",
        "--initial-coefficient",
        "0.1",
        "--teacher-clip-norm",
        "0",
    ]
    preloaded.run(COMMAND, [*left_out, *spelled_out], tmp_path / "run")
    both = [contents(tmp_path / name / RUN_FOLDER) for name in ("whole", "run")]
    assert log_lines(tmp_path / "whole" / RUN_FOLDER) == log_lines(tmp_path / "run" / RUN_FOLDER)
    assert both[0].keys() == both[1].keys()
