"""What the options of ``l2t-train-teacher`` come to."""

import shlex

import pytest
import yaml

from fairseq_l2t.plugin.student_options import OptionError
from fairseq_l2t.plugin.teacher_run_options import TeacherRunOptions
from fairseq_l2t.teaching.options.config_file import CONFIG_NAME, write_config

STUDENT = "--arch fconv --optimizer adam --lr 0.004 --max-tokens 1000"
LIFE = "--total-updates 500 --cross-entropy-updates 20 --seed 1"


def parse(folder, *options):
    languages = ["--source-lang", "de", "--target-lang", "en"]
    return TeacherRunOptions.parse(
        [str(folder), *languages, *shlex.split(" ".join((STUDENT, LIFE, *options))), "--save-dir", "run"]
    )


def of_the_loss_and_the_teacher(options):
    own = options.own
    shared = own.coefficient_form, own.objective, own.dev_batch, own.dev_holdout, own.memory_budget, own.hvp
    return options.student.loss_shape, options.plan, shared


def test_the_default_is_what_the_results_are_of(tmp_path, repository):
    grid = yaml.safe_load((repository / "experiments/grids/translation/cpu.yaml").read_text(encoding="utf-8"))
    dynamic = grid["teachers"]["dynamic"]
    shown = parse(tmp_path, *dynamic["options"], f"--teacher-updates {dynamic['updates']}")
    default = parse(tmp_path)
    assert of_the_loss_and_the_teacher(default) == of_the_loss_and_the_teacher(shown)
    assert default.plan.unroll_length == 480 and default.plan.dev_interval == 100
    assert of_the_loss_and_the_teacher(parse(tmp_path, "--preset short-windows")) != of_the_loss_and_the_teacher(shown)


def test_short_windows(tmp_path):
    options = parse(tmp_path, "--preset short-windows")
    plan, shape, own = options.plan, options.student.loss_shape, options.own
    assert (plan.unroll_length, plan.teacher_updates, plan.teacher_lr, plan.holdout_lives) == (20, 100, 0.01, 0)
    assert (plan.teacher_lr_shrink, plan.teacher_clip_norm, plan.teacher_off_diagonal_lr) == (1.0, 0.0, 0.0)
    assert (shape.level, shape.scale, own.coefficient_form) == ("token", 40.0, "diagonal")
    assert (own.objective, own.dev_batch, plan.dev_interval) == ("likelihood", 64, 0)


def test_the_paper_is_algorithm_1(tmp_path):
    """Whole lives without cross-entropy, all dev pairs, expected BLEU, the loss without a factor, Adam on W and V."""
    command = f"{STUDENT} -s de -t en --total-updates 500 --warmup-updates 50 --preset paper --save-dir run"
    options = TeacherRunOptions.parse([str(tmp_path), *command.split()])
    plan, own = options.plan, options.own
    assert (plan.cross_entropy_updates, plan.unroll_length, plan.total_updates) == (0, 500, 500)
    assert (plan.backward_length, plan.hvp, plan.holdout_lives, plan.dev_holdout) == (0, "exact", 0, 0.0)
    assert (plan.loss_scale, plan.cross_entropy_mix, plan.teacher_keys) == (1.0, 0.0, 5)
    assert (plan.teacher_optimizer, plan.teacher_word_lr, plan.teacher_clip_norm) == ("plain", plan.teacher_lr, 0.0)
    assert (own.objective, own.dev_batch, own.loss_level) == ("expected-bleu", None, "token")
    assert own.coefficient_form == "diagonal"


@pytest.mark.parametrize("preset", ["paper", "short-windows", "whole-life"])
def test_what_is_given_counts(tmp_path, preset):
    options = parse(
        tmp_path,
        f"--preset {preset} --unroll-length 30 --objective inverse-perplexity --teacher-lr 0.02",
        "--validate-interval-updates 15 --coefficient-form smoothed --initial-off-diagonal 0",
        "--teacher-off-diagonal-lr 0.001 --holdout-lives 2 --teacher-lr-shrink 0.9",
    )
    plan = options.plan
    assert (plan.unroll_length, options.own.objective, plan.teacher_lr) == (30, "inverse-perplexity", 0.02)
    assert (plan.dev_interval, plan.initial_off_diagonal) == (15, 0.0)
    assert (plan.teacher_off_diagonal_lr, plan.holdout_lives, plan.teacher_lr_shrink) == (0.001, 2, 0.9)


def test_defaults_that_make_no_sense_beside_what_is_given(tmp_path):
    """No run is refused for an option that is not given."""
    diagonal = parse(tmp_path, "--coefficient-form diagonal")
    assert (diagonal.plan.initial_off_diagonal, diagonal.plan.teacher_off_diagonal_lr) == (0.0, 0.0)
    assert parse(tmp_path, "--holdout-lives 0").plan.teacher_lr_shrink == 1.0
    assert parse(tmp_path, "--preset short-windows --coefficient-form smoothed").plan.teacher_off_diagonal_lr == 0.001
    short = parse(tmp_path, "--preset short-windows --total-updates 12 --cross-entropy-updates 2")
    assert short.plan.unroll_length == 12
    assert parse(tmp_path, "--total-updates 4 --cross-entropy-updates 1").plan.dev_interval == 1


def test_a_preset_that_does_not_exist(tmp_path):
    for given in ("--preset papers", "--preset=papers"):
        with pytest.raises(OptionError, match="--preset: papers; expected one of whole-life, paper, short-windows"):
            parse(tmp_path, given)
    assert parse(tmp_path, "--preset=short-windows").own.objective == "likelihood"
    with pytest.raises(OptionError, match="argument --preset: expected one argument"):
        parse(tmp_path, "--preset")


def test_updates_of_a_teacher_are_counted_in_lives(tmp_path):
    """A life of 480 updates after its cross-entropy has 12 windows of 40, and 5 of 100."""
    counts = {
        "": 8,
        "--unroll-length 480": 8,
        "--unroll-length 500": 8,
        "--unroll-length 40": 96,
        "--unroll-length 100": 40,
        "--unroll-length 40 --teacher-updates 3": 3,
        "--preset short-windows": 100,
        "--preset short-windows --unroll-length 480": 100,
    }
    assert {given: parse(tmp_path, given).plan.teacher_updates for given in counts} == counts
    with pytest.raises(ValueError, match="--unroll-length: 0; expected"):
        parse(tmp_path, "--unroll-length 0")


def test_what_a_resumed_run_must_share_is_what_its_options_come_to(tmp_path):
    common = "--validate-interval-updates 50 --teacher-keys 1"
    paper = parse(tmp_path, common, "--preset short-windows").fixed()
    spelled_out = (
        "--coefficient-form diagonal --dev-batch 64 --holdout-lives 0 --initial-coefficient 0.1 "
        "--loss-level token --objective likelihood --teacher-clip-norm 0 --teacher-lr 0.01 --unroll-length "
        "20"
    )
    assert parse(tmp_path, common, spelled_out).fixed() == paper
    assert parse(tmp_path, common, spelled_out, "--unroll-length 21").fixed() != paper
    # How far keys are spread is nothing where there is one; with more it is.
    assert parse(tmp_path, common, spelled_out, "--teacher-keys 2").fixed()["stage_spread"] == 4.0
    assert paper["stage_spread"] == 0.0 and paper["unroll_length"] == 20
    assert parse(tmp_path).fixed()["validate_interval_updates"] == 100


def test_the_options_of_a_run_are_those_of_its_file(tmp_path):
    """What is written beside a run starts another one with the same options; the command line overrides it."""
    given = "--preset short-windows --teacher-lr 1e-3 --trust-module my_plugin.A"
    of_fairseq = "--adam-betas '(0.9, 0.98)' --encoder-layers '[(512, 3)] * 2'"
    options = parse(tmp_path, given, of_fairseq, "--validate-interval-updates 15 --no-progress-bar")
    write_config(tmp_path, options.file_values())
    file = str(tmp_path / CONFIG_NAME)
    again = TeacherRunOptions.parse(["--config", file])
    assert (again.file_values(), again.fixed(), again.plan) == (options.file_values(), options.fixed(), options.plan)
    (tmp_path / "other").mkdir()
    other = TeacherRunOptions.parse([str(tmp_path / "other"), "--config", file, "--lr", "0.5", "--dev-batch", "9"])
    assert other.student.cfg.task.data == str(tmp_path / "other")
    assert (other.student.cfg.optimization.lr, other.own.dev_batch, other.own.teacher_lr) == ([0.5], 9, 1e-3)
    assert other.fixed() != options.fixed()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("", "13a"),
        ("--target-lang zh", "zh"),
        ("--target-lang zh_CN --bleu-tokenizer char", "char"),
        ("--target-lang zh --eval-tokenized-bleu", "none"),
        ("--target-lang ko --bleu-tokenizer intl", "intl"),
        ("--target-lang ja --objective likelihood", "ja-mecab"),
    ],
)
def test_the_reward_takes_the_tokenizer_of_the_target_language(tmp_path, given, expected):
    options = parse(tmp_path, "--objective expected-bleu", given)
    assert options.own.bleu_tokenizer == options.student.bleu_tokenizer == expected
    assert options.fixed()["bleu_tokenizer"] == expected


def test_a_reward_that_needs_mecab(tmp_path, monkeypatch):
    monkeypatch.setattr("sacrebleu.tokenizers.tokenizer_ja_mecab.MeCab", None)
    message = r"--bleu-tokenizer: ja-mecab \(of target language ja\) needs MeCab .*'sacrebleu\[ja\]'; or use char$"
    with pytest.raises(OptionError, match=message):
        parse(tmp_path, "--objective expected-bleu --target-lang ja")
    assert parse(tmp_path, "--target-lang ja --objective expected-bleu --bleu-tokenizer char")


def test_a_name_in_a_file_that_is_no_option(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("teacher-lr: 0.1\ndropuot: 0.1\n", encoding="utf-8")
    with pytest.raises(
        OptionError, match=r"--config: .*config.yaml: dropuot; not an option of l2t-train-teacher or fairseq"
    ):
        parse(tmp_path, f"--config {path}")
    path.write_text("teacher-lr: 0.1\ndropout: 0.1\n", encoding="utf-8")
    assert parse(tmp_path, f"--config {path}").student.namespace.dropout == 0.1


def test_help_has_our_options_first(capsys):
    with pytest.raises(SystemExit) as ended:
        TeacherRunOptions.parse(["--help"])
    assert ended.value.code == 0
    told = capsys.readouterr().out
    assert "--teacher-lr LR" in told and "--required-batch-size-multiple" not in told
