"""The whole path on images of CIFAR's shape and files: ResNet-8, augmented, 10 and 100 classes."""

import json

import pytest

from fairseq_l2t.storage import load_teacher

WRITE = ["python", "-m", "experiments", "synthetic-cifar"]
DATA = ["--train-limit", "300", "--dev-size", "200", "--student", "resnet-8", "--augment", "--label-noise", "0.4"]
LIFE = ["--total-updates", "6", "--batch-size", "32", "--lr", "0.05", "--validate-interval-updates", "3"]


@pytest.mark.very_slow
@pytest.mark.parametrize("classes", [10, 100])
def test_teacher_student_evaluation_and_figures(classes, tmp_path, run_command):
    images = tmp_path / "images"
    command = [*WRITE, images]
    told = run_command([*command, "--classes", classes]).stdout
    assert told.count("images\n") == {10: 6, 100: 2}[classes]
    data = ["--data", f"cifar{classes}", "--data-dir", images, *DATA, *LIFE]
    more = ["--teacher-updates", 1, "--holdout-lives", 1, "--save-dir", tmp_path / "teacher"]
    run_command(["l2t-classify", "train-teacher", *data, *more])
    path = tmp_path / "teacher" / "teacher.safetensors"
    teacher = load_teacher(path, forms=("full",)).teacher
    assert (teacher.entries, teacher.coefficient_count, len(teacher.features)) == (classes, classes**2, classes + 3)
    line = json.loads((tmp_path / "teacher" / "teacher_log.jsonl").read_text())
    assert line["hypergradient_norm"] > 0
    taught = ["--loss", "teacher", "--teacher-path", path, "--save-dir", tmp_path / "student"]
    run_command(["l2t-classify", "train", *data, *taught])
    found = run_command(["l2t-classify", "evaluate", tmp_path / "student" / "checkpoint_best.safetensors"]).stdout
    record = json.loads(found.splitlines()[0])
    assert (record["student"], record["test_images"]) == ("resnet-8", 10_000)
    run_command(["l2t-classify", "plot", tmp_path / "teacher", "--output-dir", tmp_path / "figures"])
    assert {path.name for path in (tmp_path / "figures").iterdir()} == {"phi.png", "training.png"}


@pytest.mark.slow
def test_the_same_seed_writes_the_same_images(tmp_path, run_command):
    for name, seed in (("first", 1), ("again", 1), ("other", 2)):
        run_command([*WRITE, tmp_path / name, "--classes", "100", "--seed", seed])
    first, again, other = ((tmp_path / name / "test.bin").read_bytes() for name in ("first", "again", "other"))
    assert first == again and first != other
    assert first != (tmp_path / "first" / "train.bin").read_bytes()[: len(first)]
    (tmp_path / "file").write_text("")
    told = run_command([*WRITE, tmp_path / "file"], expect=2).stderr
    assert told.startswith("experiments: error: ") and told.count("\n") == 1
