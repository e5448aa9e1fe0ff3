"""The real ``l2t-classify``: teacher, student, evaluation, plots; stopped, killed, misused; without fairseq.

Where what is tested is not the start of a process, commands are forked from one that has imported everything.
"""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from fairseq_l2t.storage import load_run_state, load_teacher
from tests.classification.data.image_files import write_mnist
from tests.end_to_end import preloaded

DATA = ["--train-limit", "200", "--label-noise", "0.4", "--student", "mlp-8", "--batch-size", "20", "--lr", "0.05"]
LIFE = ["--total-updates", "40", "--validate-interval-updates", "10"]
TEACHER = ["train-teacher", *DATA, *LIFE, "--teacher-updates", "3", "--teacher-keys", "3"]
PNG = b"\x89PNG"


@pytest.fixture(scope="module")
def trained(tmp_path_factory, run_command):
    folder = tmp_path_factory.mktemp("classify")
    run_command(["l2t-classify", *TEACHER, "--save-dir", folder / "teacher"])
    return folder


def student(folder, trained, *more):
    taught = ["--loss", "teacher", "--teacher-path", trained / "teacher" / "teacher.safetensors"]
    return ["train", *DATA, *LIFE, *taught, "--save-dir", folder / "student", *more]


def forked(arguments, folder, expect=0):
    """An l2t-classify that ends with ``expect``; relative paths are inside ``folder / "work"``."""
    return preloaded.run("l2t-classify", arguments, folder / "work", expect=expect)


def lines_of(path):
    return [{**json.loads(line), "seconds": 0} for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.slow
def test_teacher_student_evaluation_and_figures(trained, tmp_path, run_command):
    log = lines_of(trained / "teacher" / "teacher_log.jsonl")
    assert [line["teacher_update"] for line in log] == [1, 2, 3]
    assert all(line["hypergradient_norm"] > 0 for line in log)
    run_command(["l2t-classify", *student(tmp_path, trained)])
    found = run_command(["l2t-classify", "evaluate", tmp_path / "student" / "checkpoint_best.safetensors"])
    (record,) = (json.loads(line) for line in found.stdout.splitlines())
    assert (record["loss"], record["student"], record["test_images"]) == ("teacher", "mlp-8", 500)
    assert found.stderr.splitlines()[-1].endswith("% of the test images wrong, seeds: 1")
    curve = lines_of(tmp_path / "student" / "train_log.jsonl")
    assert [line["update"] for line in curve] == [10, 20, 30, 40]
    assert record["dev_error"] == min(line["dev_error"] for line in curve) > 1  # both in percent
    run_command(["l2t-classify", "plot", trained / "teacher", "--output-dir", tmp_path / "p", "--classes", "3", "8"])
    assert all((tmp_path / "p" / name).read_bytes().startswith(PNG) for name in ("phi.png", "training.png"))
    # The states a student is shown are those of the lives that taught the teacher.
    states = load_teacher(trained / "teacher" / "teacher.safetensors", forms=("full",)).settings.extra["states"]
    assert [round(40 * state["progress"]) for state in states] == [0, 10, 20, 30, 40]


@pytest.mark.slow
def test_a_stopped_teacher_goes_on_to_the_same_bytes(trained, tmp_path):
    command = [*TEACHER, "--save-dir", tmp_path / "teacher"]
    program = [str(Path(sys.executable).parent / "l2t-classify"), *map(str, command)]
    running = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    log = tmp_path / "teacher" / "teacher_log.jsonl"
    while not (log.exists() and log.read_text().count("\n")) and running.poll() is None:
        time.sleep(0.002)
    running.send_signal(signal.SIGTERM)
    _, told = running.communicate(timeout=60)
    if running.returncode != 0:  # else it was done before the signal came
        assert running.returncode == 128 + signal.SIGTERM and "stopped by SIGTERM; --resume continues" in told
        refused = forked(command, tmp_path, expect=2).stderr
        assert "--save-dir" in refused and "give --resume" in refused
    forked([*command, "--resume"], tmp_path)
    for name in ("teacher.safetensors", "teacher_last.safetensors"):
        assert (tmp_path / "teacher" / name).read_bytes() == (trained / "teacher" / name).read_bytes()
    assert lines_of(log) == lines_of(trained / "teacher" / "teacher_log.jsonl")
    changed = forked([*command, "--resume", "--lr", "0.06"], tmp_path, expect=2).stderr
    assert "--resume: the run was started with other options: --lr 0.05 then, 0.06 now" in changed


@pytest.mark.slow
def test_a_killed_student_goes_on_to_the_same_bytes(trained, tmp_path):
    forked(student(tmp_path / "whole", trained), tmp_path)
    command = student(tmp_path / "killed", trained, "--resume-or-start")
    folder = tmp_path / "killed" / "student"
    running = preloaded.start("l2t-classify", command, tmp_path / "work")
    running.wait_until(lambda: (folder / "run_state.safetensors").exists())
    running.process.kill()
    assert running.end(expect=None).process.exitcode in (0, -signal.SIGKILL)  # 0: it was faster than we
    forked(command, tmp_path)
    whole = tmp_path / "whole" / "student"
    for name in ("checkpoint_best.safetensors", "run_state.safetensors"):
        assert (folder / name).read_bytes() == (whole / name).read_bytes()
    assert lines_of(folder / "train_log.jsonl") == lines_of(whole / "train_log.jsonl")
    assert not list(folder.glob("*.partial"))
    forked([*student(tmp_path / "other", trained), "--seed", "2", "--tensorboard-logdir", tmp_path / "board"], tmp_path)
    assert list((tmp_path / "board").glob("events.*"))
    control = (tmp_path / "other" / "student" / "checkpoint_best.safetensors").read_bytes()
    assert control != (whole / "checkpoint_best.safetensors").read_bytes()
    assert load_run_state(whole)[1]["update"] == 40


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--los", "teacher"], "unrecognized arguments: --los teacher"),
        (["train", "--loss", "teacher"], "--loss teacher: needs --teacher-path FILE"),
        (["train", "--teacher-path", "x"], "--teacher-path: needs --loss teacher; --loss is cross-entropy"),
        (["train", "--loss", "teacher", "--teacher-path", "none"], "none: No such file"),
        (["train", "--student", "vgg"], "--student"),
        (["train", "--data", "mnist"], "--data mnist: needs --data-dir"),
        (["train", "--data", "cifar10", "--data-dir", "none"], "--data-dir: none; expected a folder"),
        (["train", "--lr", "0"], "--lr: 0; expected a number above 0"),
        (["train-teacher", "--unroll-length", "700"], "--unroll-length: 700; expected a whole number"),
        (["train-teacher", "--dev-holdout", "0"], "--dev-holdout: 0.0; expected a number above 0 and below 1"),
        (["train-teacher", "--memory-budget", "1K"], "--memory-budget: 1K; a window of "),
    ],
)
def test_misuse_is_told_in_one_line(tmp_path, arguments, message):
    told = forked([*arguments, "--save-dir", "run"], tmp_path, expect=2).stderr.strip().splitlines()
    assert len(told) == 1 and message in told[0]
    assert not list((tmp_path / "work" / "run").glob("*.safetensors"))


def test_wrong_files_are_told_in_one_line(trained, tmp_path):
    teacher = trained / "teacher" / "teacher.safetensors"
    told = forked(["evaluate", teacher], tmp_path, expect=2).stderr
    assert "kind 'teacher'; expected 'classifier'" in told
    (tmp_path / "file").touch()
    told = forked(["plot", trained / "teacher", "--output-dir", tmp_path / "file"], tmp_path, expect=2)
    assert (
        told.stderr == f"l2t-classify: error: --output-dir: {tmp_path / 'file'}: File exists; "
        "expected a folder, or a path where one can be created\n"
    )
    (tmp_path / "cut").write_bytes(teacher.read_bytes()[:-10])
    told = forked(
        ["train", "--loss", "teacher", "--teacher-path", tmp_path / "cut", "--save-dir", tmp_path / "s"],
        tmp_path,
        expect=2,
    ).stderr
    assert told.startswith("l2t-classify: error: ") and "cut" in told and told.count("\n") == 1


WITHOUT_FAIRSEQ = """
import sys
for name in ("fairseq", "fairseq_cli", "hydra", "omegaconf", "sentencepiece"):
    sys.modules[name] = None  # importing it raises ImportError
from fairseq_l2t.cli.classify import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_fairseq_may_be_absent(tmp_path, run_command, trained):
    run_command(["python", "-c", WITHOUT_FAIRSEQ, *TEACHER, "--save-dir", tmp_path / "teacher"])
    ours, theirs = (folder / "teacher" / "teacher.safetensors" for folder in (tmp_path, trained))
    assert ours.read_bytes() == theirs.read_bytes()
    found = run_command(["python", "-c", WITHOUT_FAIRSEQ.replace("fairseq_l2t.cli.classify", "fairseq"), "x"], expect=1)
    assert "ImportError" in found.stderr or "ModuleNotFoundError" in found.stderr  # control: it is blocked


@pytest.mark.slow
def test_images_that_have_changed_are_not_evaluated_on(tmp_path):
    images, folder = tmp_path / "images", tmp_path / "student"
    images.mkdir()
    write_mnist(images, "t10k", 3500)
    data = ["--data", "mnist", "--data-dir", images, "--dev-size", "100", "--student", "mlp-4"]
    command = ["train", *data, *LIFE, "--save-dir", folder]
    forked(command, tmp_path)
    checkpoint = folder / "checkpoint_best.safetensors"
    forked(["evaluate", checkpoint], tmp_path)
    moved = tmp_path / "moved"
    images.rename(moved)
    forked(["evaluate", checkpoint, "--data-dir", moved], tmp_path)
    write_mnist(moved, "train", 1000, seed=1)  # now it has test images of its own
    told = forked(["evaluate", checkpoint, "--data-dir", moved], tmp_path, expect=2).stderr
    assert "holds other images or labels than it was trained on: then our split of the 3,500 test images" in told
    assert told.count("\n") == 1
    resumed = [str(moved) if part is images else part for part in command]
    told = forked([*resumed, "--resume"], tmp_path, expect=2).stderr
    assert f"--data-dir: {moved}; holds other images or labels than the run was started with" in told


@pytest.mark.slow
def test_a_teacher_of_another_division_is_told(trained, tmp_path):
    told = forked([*student(tmp_path, trained), "--split-seed", "1"], tmp_path).stdout
    assert "taught on another division of the images" in told and "--split-seed 0 then, 1 now" in told
    again = forked(student(tmp_path / "same", trained), tmp_path).stdout
    assert "another division" not in again


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--seed", "9" * 25, "--seed: 9999"),
        ("--seed", "x", "--seed: x; expected a whole number from 0 to"),
        ("--dev-batch", "0", "--dev-batch: 0; expected a whole number of at least 1"),
        ("--teacher-keys", "0", "--teacher-keys: 0; expected a whole number of at least 1"),
        ("--initial-coefficient", "inf", "--initial-coefficient: inf; expected a number of at least 1e-06"),
        ("--dev-size", "1", "--dev-holdout: 0.5 of 1 dev images (--dev-size) is none"),
        ("--student", "mlp-999999-999999", "not enough memory: "),
    ],
)
@pytest.mark.slow
def test_values_out_of_range_name_the_option(option, value, message, tmp_path):
    command = [*TEACHER, "--save-dir", tmp_path / "teacher", option, value]
    code = 1 if "memory" in message else 2
    told = forked(command, tmp_path, expect=code).stderr
    assert message in told.splitlines()[-1] and not list((tmp_path / "teacher").glob("*.safetensors"))


@pytest.mark.slow
def test_constants_to_compare_a_learned_loss_with(tmp_path):
    start = ["--teacher-updates", "0", "--initial-coefficient", "0.5", "--initial-off-diagonal", "0.02"]
    forked([*TEACHER, *start, "--teacher-keys", "1", "--save-dir", tmp_path / "run"], tmp_path)
    teacher = load_teacher(tmp_path / "run" / "teacher.safetensors", forms=("full",)).teacher
    phi = teacher.values.view(10, 10)
    assert torch.equal(phi, torch.full((10, 10), 0.02).fill_diagonal_(0.5))
