"""Files of classifiers in which one value or tensor was changed: run states, checkpoints, logs, teachers."""

import dataclasses
import json

import pytest

from fairseq_l2t.classification.checkpoint import CheckpointError, load_checkpoint
from fairseq_l2t.classification.evaluation import evaluate
from fairseq_l2t.classification.options import parse
from fairseq_l2t.classification.runs import BEST_CHECKPOINT, new_training, train_student
from fairseq_l2t.classification.saved_training import check_saved_training
from fairseq_l2t.classification.teaching import classes_of, new_teacher
from fairseq_l2t.storage import TeacherSettings, load_run_state, save_teacher
from fairseq_l2t.storage.container import open_container, write_container
from fairseq_l2t.teaching.options.comparison import ResumeError
from tests.storage.edits import edited_tensors, edited_values

LIFE = (
    "--train-limit 64 --student mlp-4 --batch-size 8 --total-updates 4 --validate-interval-updates 2 --no-progress-bar"
)
OTHERS_OF_THE_RECIPE = {"weight_decay: is 1", "momentum: is 0", "lr: is 1", "lr: is 2.5", "weight_decay: is 2.5"}


def options_of(folder, *more):
    return parse(["train", *LIFE.split(), "--save-dir", str(folder), *map(str, more)]).options


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    train_student(options_of(folder))
    return folder


def test_no_edit_of_a_run_state_is_resumed(trained):
    tensors, values = load_run_state(trained, check_saved_training)
    student = new_training(options_of(trained))
    edits = [(name, tensors, {**values, **changed}) for name, changed in edits_of(values)]
    edits += [(name, changed, values) for name, changed in edited_tensors(tensors)]
    accepted = set()
    for name, *edited in edits:
        try:
            check_saved_training(*edited)
            student.load_state_dict(*edited)
            accepted.add(name)
        except ValueError as error:
            assert "\n" not in str(error)
    names = [f"measures.{name}" for name in values["measures"]]
    names += [f"best.state.{name}" for name in values["measures"]]
    others = {
        f"{name}: is {value}" for name in (*names, "best.dev_error", "update", "without_best") for value in (0, 1)
    }
    others |= {"best.update: is 1", "fingerprints: removed", "fingerprints: is None"}
    assert sorted(accepted - others) == []
    check_saved_training(tensors, values)
    student.load_state_dict(tensors, values)  # control


def edits_of(values):
    """Edits of all values but the options, each of which is compared by `refuse_other_options`."""
    rest = {name: value for name, value in values.items() if name != "options"}
    yield from (
        (name, changed | {"options": values["options"]})
        for name, changed in edited_values(rest)
        if "removed" not in name
    )


@pytest.mark.parametrize("name", ["seed", "update", "measures", "best", "without_best", "options"])
def test_a_missing_value_is_named(trained, name):
    tensors, values = load_run_state(trained)
    with pytest.raises(ValueError, match=f"^{name}: missing$"):
        check_saved_training(tensors, {key: value for key, value in values.items() if key != name})


def test_no_edit_of_a_checkpoint_ends_in_a_traceback(trained, tmp_path, monkeypatch):
    with open_container(trained / BEST_CHECKPOINT, "classifier", 1) as container:
        content, (tensors, _) = container.content, container.read()
    path = tmp_path / "edited"
    splits = new_training(options_of(trained)).student.splits
    monkeypatch.setattr("fairseq_l2t.classification.evaluation.data_of", lambda options: splits)
    edits = [(name, tensors, changed) for name, changed in edited_values(content)]
    edits += [(name, changed, content) for name, changed in edited_tensors(tensors)]
    refused = 0
    for name, changed_tensors, changed in edits:
        monkeypatch.setattr(
            "fairseq_l2t.classification.checkpoint.open_container", opened(changed_tensors, changed, path)
        )
        try:
            evaluate(path)
        except CheckpointError as error:
            refused += 1
            assert str(error).startswith(f"{path}: ") and "\n" not in str(error), name
    assert 200 < refused < len(edits)


def opened(tensors, content, path):
    """A stand-in of `open_container`, without the file."""
    from contextlib import nullcontext
    from types import SimpleNamespace

    return lambda *arguments: nullcontext(SimpleNamespace(path=path, content=content, read=lambda: (tensors, [])))


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("training.images_sha256", "0", "training.images_sha256: '0'; string should match pattern"),
        ("training.options", [], "training.options: []; input should be a valid dictionary"),
        ("training.data", {"data": "svhn"}, "training.data: --data: svhn; expected one of digits"),
        ("recipe.student", "vgg", "recipe: --student: 'vgg'; expected mlp"),
        ("recipe.batch_size", 10**6, "recipe: --batch-size: 1000000; expected at most the 64 training images"),
    ],
)
def test_a_wrong_value_of_a_checkpoint_is_named(trained, tmp_path, place, value, message):
    with open_container(trained / BEST_CHECKPOINT, "classifier", 1) as container:
        content, (tensors, _) = container.content, container.read()
    *holders, last = place.split(".")
    holder = content
    for name in holders:
        holder = holder[name]
    holder[last] = value
    write_container(tmp_path / "edited", "classifier", 1, content, tensors)
    with pytest.raises(CheckpointError) as raised:
        evaluate(tmp_path / "edited")
    assert message in str(raised.value)
    assert load_checkpoint(trained / BEST_CHECKPOINT).training.options.seed == 1  # control


def test_a_student_is_not_resumed_under_another_teacher(tmp_path):
    """The path is the same; the file has been replaced."""
    path, folder = tmp_path / "teacher.safetensors", tmp_path / "run"
    taught = ("--loss", "teacher", "--teacher-path", path)
    student = new_training(options_of(folder)).student

    def write(seed):
        teacher = new_teacher(student, keys=2, seed=seed)
        save_teacher(path, teacher, classes_of(student.splits.train.classes), TeacherSettings(4.0, 0.0, 4, 0))

    write(1)
    train_student(options_of(folder, *taught))
    train_student(options_of(folder, *taught, "--resume"))
    write(2)
    with pytest.raises(
        ResumeError, match="^--resume: the run was started with other content of the teacher of --teacher"
    ):
        train_student(options_of(folder, *taught, "--resume"))


def test_a_log_with_foreign_lines_is_mended(trained, tmp_path, caplog):
    folder = tmp_path / "run"
    train_student(options_of(folder))
    log = folder / "train_log.jsonl"
    whole = log.read_text()
    log.write_text("note\n" + whole + '{"update": 4, "dev')
    train_student(options_of(folder, "--resume"))
    assert log.read_text() == whole and f"{log}: not a record with a field update: line 1" in caplog.text
    assert [json.loads(line)["update"] for line in whole.splitlines()] == [2, 4]


def test_a_run_that_does_not_exist_is_not_resumed(tmp_path):
    with pytest.raises(ResumeError, match="contains no saved run of the training of a student"):
        train_student(options_of(tmp_path / "absent", "--resume"))
    assert not (tmp_path / "absent").exists()
    options = options_of(tmp_path / "absent")
    train_student(dataclasses.replace(options, resume_or_start=True))
    train_student(dataclasses.replace(options, resume=True))
