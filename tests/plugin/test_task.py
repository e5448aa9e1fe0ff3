"""The task: what it refuses before data is read, its state in checkpoints, its frozen teacher."""

import pytest
import torch
from fairseq import tasks
from fairseq.tasks.translation import TranslationTask

from fairseq_l2t.loss.student_state import BASE_FEATURES
from fairseq_l2t.plugin.task import updates_of_epochs
from fairseq_l2t.teaching.options.comparison import ResumeError
from fairseq_l2t.testing.fairseq_reference import configuration, run_fairseq
from tests.plugin.taught import build_taught, symbols_of, task_arguments, write_teacher
from tests.storage.edits import edited_values

CPU = torch.device("cpu")
TRAINED = [{"training_batches": 1, "nll_loss": 300.0, "n_correct": 40.0, "ntokens": 100, "loss": 1.0}]


@pytest.fixture(scope="module")
def teacher_path(data_bin, tmp_path_factory):
    path = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
    write_teacher(path, symbols_of(data_bin))
    return str(path)


def refused(data_bin, monkeypatch, *more, drop=()):
    """Return the message a command line is refused with; no data may have been read."""
    read = []
    monkeypatch.setattr(TranslationTask, "load_dataset", lambda *given, **named: read.append(given))
    arguments = [option for option in task_arguments(data_bin, *more) if option not in drop]
    with pytest.raises(ValueError) as raised:
        build_taught(arguments)
    assert not read
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_no_teacher(data_bin, monkeypatch):
    assert refused(data_bin, monkeypatch).startswith("--teacher-path: not given")


def test_another_criterion(data_bin, teacher_path, monkeypatch):
    message = refused(data_bin, monkeypatch, "--teacher-path", teacher_path, "--criterion", "cross_entropy")
    assert message == "--criterion: cross_entropy; --task l2t_dlf trains with --criterion dynamic_teacher_loss"


@pytest.mark.parametrize("option", ["--fp16", "--bf16", "--amp"])
def test_half_precision_on_a_cpu(data_bin, teacher_path, monkeypatch, option):
    """fairseq crashes on the first two, and trains in float32 without a word on the third."""
    message = refused(data_bin, monkeypatch, "--teacher-path", teacher_path, "--cpu", option)
    assert message.startswith(f"{option}: fairseq-train needs a GPU for it")
    monkeypatch.undo()
    allowed = task_arguments(data_bin, "--teacher-path", teacher_path, "--cpu", "--memory-efficient-fp16")
    assert build_taught(allowed).task.frozen_teacher is not None


def test_absent_teacher_or_folder(data_bin, tmp_path, monkeypatch):
    for path in (tmp_path / "absent.safetensors", tmp_path):
        assert refused(data_bin, monkeypatch, "--teacher-path", str(path)).startswith(str(path))


def test_teacher_of_another_vocabulary(data_bin, tmp_path, monkeypatch):
    symbols, path = symbols_of(data_bin), tmp_path / "teacher.safetensors"
    write_teacher(path, symbols[:-1])
    message = refused(data_bin, monkeypatch, "--teacher-path", str(path))
    assert f"{len(symbols) - 1} entries" in message and f"has {len(symbols)}" in message
    write_teacher(path, [*symbols[:-2], symbols[-1], symbols[-2]])
    message = refused(data_bin, monkeypatch, "--teacher-path", str(path))
    assert "another vocabulary of the same" in message and message.count("fingerprint") == 1


def test_teacher_that_looks_at_bleu(data_bin, tmp_path, monkeypatch):
    path = tmp_path / "teacher.safetensors"
    write_teacher(path, symbols_of(data_bin), with_bleu=True)
    assert "dev_bleu is a feature of this teacher; give --eval-bleu" in refused(
        data_bin, monkeypatch, "--teacher-path", str(path)
    )
    monkeypatch.undo()
    taught = build_taught(task_arguments(data_bin, "--teacher-path", str(path), "--eval-bleu"))
    assert taught.task.frozen_teacher is not None


def test_no_length_of_life(data_bin, teacher_path, monkeypatch):
    message = refused(data_bin, monkeypatch, "--teacher-path", teacher_path, "--max-update", "0")
    assert message.startswith("--total-updates: not given; give --max-update, --max-epoch or --total-updates")
    message = refused(data_bin, monkeypatch, "--teacher-path", teacher_path, "--total-updates", "9" * 20)
    assert message == f"--total-updates: {'9' * 20}; expected a whole number of at least 1 and at most 10000000"
    folders = f"{data_bin}:{data_bin}"
    arguments = ["--teacher-path", teacher_path, "--max-update", "0", "--max-epoch", "2"]
    message = refused(folders, monkeypatch, *arguments)
    assert message.startswith("--max-epoch: 2; several data folders have epochs of different lengths; give --total-upd")


@pytest.mark.parametrize(
    ("batches", "epochs", "frequencies", "skip_remainder", "updates"),
    [
        (50, 1, [1], False, 50),
        (50, 2, [2], False, 50),
        (51, 2, [2], False, 52),
        (51, 3, [3, 2], False, 17 + 26 + 26),
        (51, 2, [2], True, 50),
        (50, 2, [2], True, 48),
        (1, 4, [8], False, 4),
    ],
)
def test_updates_of_epochs(batches, epochs, frequencies, skip_remainder, updates):
    assert updates_of_epochs(batches, epochs, frequencies, skip_remainder=skip_remainder) == updates


def test_epochs_give_the_length_of_life(data_bin, teacher_path, tmp_path):
    def coefficients(*life):
        arguments = task_arguments(data_bin, "--teacher-path", teacher_path, "--save-dir", str(tmp_path), *life)
        return run_fairseq([*arguments, "--no-progress-bar"], 7, double=False).coefficients

    by_epochs = coefficients("--max-update", "0", "--max-epoch", "2")  # 50 batches an epoch, two of them an update
    by_updates, control = coefficients("--max-update", "50"), coefficients("--max-update", "20")
    for smaller in (("--max-update", "50", "--max-epoch", "9"), ("--max-update", "500", "--max-epoch", "2")):
        assert all(torch.equal(*pair) for pair in zip(coefficients(*smaller)[5:], by_updates[5:], strict=True))
    assert [phi is None for phi in by_epochs] == [True] * 5 + [False] * 2  # a tenth of 50, as the teacher was taught
    assert all(torch.equal(phi, expected) for phi, expected in zip(by_epochs[5:], by_updates[5:], strict=True))
    assert not torch.equal(by_epochs[6], control[6])


def test_cross_entropy_to_the_end(data_bin, teacher_path, monkeypatch):
    life = ("--teacher-path", teacher_path, "--total-updates", "9", "--cross-entropy-updates")
    message = refused(data_bin, monkeypatch, *life, "9")
    assert message.startswith("--cross-entropy-updates: 9; expected less than the student's life of 9 updates")
    monkeypatch.undo()
    assert build_taught(task_arguments(data_bin, *life, "8")).task.frozen_teacher is not None


def test_decoding_needs_no_teacher(data_bin):
    task = tasks.setup_task(configuration(task_arguments(data_bin)).task)
    assert task.build_model(configuration(task_arguments(data_bin)).model, from_checkpoint=True) is not None
    assert "teaching" not in task.state_dict()
    task.load_state_dict({"teaching": {"version": 99}})  # a student's checkpoint, decoded


def coefficients_at(taught, update):
    taught.task.frozen_teacher.prepare(update, CPU, torch.float32)
    return taught.task.frozen_teacher.coefficients


def test_state_round_trip(data_bin, teacher_path):
    arguments = task_arguments(data_bin, "--teacher-path", teacher_path)
    first, resumed, control = (build_taught(arguments) for _ in range(3))
    coefficients_at(first, 4)
    for _ in range(5):
        first.task.frozen_teacher.observe(TRAINED)
    first.task.frozen_teacher.begin_validation()
    first.task.frozen_teacher.observe([{"nll_loss": 200.0, "n_correct": 50.0, "ntokens": 100}])
    resumed.task.load_state_dict(first.task.state_dict())
    expected = coefficients_at(first, 5)
    assert torch.equal(coefficients_at(resumed, 5), expected)
    assert not torch.equal(coefficients_at(control, 5), expected)


def test_state_of_another_kind(data_bin, teacher_path):
    taught = build_taught(task_arguments(data_bin, "--teacher-path", teacher_path))
    before = taught.task.state_dict()
    taught.task.load_state_dict({})  # a checkpoint of plain translation
    assert taught.task.state_dict() == before
    assert list(before["teaching"]["measures"]) == list(BASE_FEATURES[1:])
    with pytest.raises(ValueError, match="teaching state: version 7; this release reads 1"):
        taught.task.load_state_dict({"teaching": {**before["teaching"], "version": 7}})


def test_a_checkpoint_of_another_teacher(data_bin, teacher_path, tmp_path, caplog):
    """Refused by name, or said where it is meant; the same teacher in another place is the same teacher."""
    path, moved, symbols = tmp_path / "other.safetensors", tmp_path / "moved.safetensors", symbols_of(data_bin)
    write_teacher(path, symbols, seed=3)
    write_teacher(moved, symbols)
    taught = build_taught(task_arguments(data_bin, "--teacher-path", teacher_path))
    coefficients_at(taught, 4)
    taught.task.frozen_teacher.observe(TRAINED)
    saved = taught.task.state_dict()
    build_taught(task_arguments(data_bin, "--teacher-path", str(moved))).task.load_state_dict(saved)
    other = task_arguments(data_bin, "--teacher-path", str(path))
    refused = build_taught(other).task
    before = refused.state_dict()
    with pytest.raises(
        ResumeError, match=rf"^--teacher-path: {path} is another teacher than the one of the checkpoint"
    ):
        refused.load_state_dict(saved)
    assert refused.state_dict() == before and not caplog.records
    meant = build_taught([*other, "--allow-other-teacher"]).task
    meant.load_state_dict(saved)
    assert meant.state_dict()["teaching"]["measures"] == saved["teaching"]["measures"]
    assert caplog.messages[-1].startswith(f"--allow-other-teacher: {path} is another teacher")


def test_a_checkpoint_of_an_earlier_version_names_no_teacher(data_bin, teacher_path, caplog):
    taught = build_taught(task_arguments(data_bin, "--teacher-path", teacher_path)).task
    entry = taught.state_dict()["teaching"]
    taught.load_state_dict({"teaching": {name: entry[name] for name in ("version", "measures")}})
    assert caplog.messages[-1].startswith("the checkpoint of an earlier version does not identify its teacher")


def test_a_life_of_another_length_is_told(data_bin, teacher_path, caplog):
    options = ["--teacher-path", teacher_path, "--total-updates"]
    saved = build_taught(task_arguments(data_bin, *options, "20")).task.state_dict()
    build_taught(task_arguments(data_bin, *options, "40")).task.load_state_dict(saved)
    told = [message.partition(";")[0] for message in caplog.messages]
    assert told == ["--total-updates: 20 then, 40 now", "--cross-entropy-updates: 2 then, 4 now"]


def test_no_edit_of_the_saved_state_is_loaded(data_bin, teacher_path):
    taught = build_taught(task_arguments(data_bin, "--teacher-path", teacher_path)).task
    saved = taught.state_dict()
    before, loaded = saved["teaching"], set()
    for name, changed in edited_values({"teaching": before}):
        try:
            taught.load_state_dict(changed)
            loaded.add(name.removeprefix("teaching."))
        except ValueError as error:
            assert "\n" not in str(error)
            assert taught.state_dict() == saved
        taught.load_state_dict(saved)
    others = {"teacher_sha256: removed", "total_updates: removed", "cross_entropy_updates: removed"}
    others |= {f"{name}: is {value}" for name in ("total_updates", "cross_entropy_updates") for value in (None, 0, 1)}
    others |= {f"measures.{name}: is {value}" for name in before["measures"] for value in (0, 1)}
    assert sorted(loaded - others - {"teacher_sha256: is None", "teaching: removed"}) == []


def test_teacher_is_frozen(data_bin, teacher_path, tmp_path):
    arguments = task_arguments(data_bin, "--teacher-path", teacher_path, "--save-dir", str(tmp_path))
    run = run_fairseq([*arguments, "--no-progress-bar"], 3, double=False)
    teacher = run.task.frozen_teacher._teacher
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    optimized = {id(parameter) for group in run.trainer.optimizer.param_groups for parameter in group["params"]}
    assert optimized == {id(parameter) for parameter in run.trainer.model.parameters()}
    assert not list(run.trainer.criterion.parameters())
    control = write_teacher(tmp_path / "again.safetensors", symbols_of(data_bin))
    assert all(torch.equal(a, b) for a, b in zip(teacher.parameters(), control.parameters(), strict=True))
    # two micro-batches an update, one Phi: the third update's is what the last batch saw
    assert run.coefficients[0] is run.coefficients[1] is None
    assert run.coefficients[2] is run.task.frozen_teacher.coefficients


def test_half_precision_students_get_whole_coefficients(data_bin, teacher_path):
    taught = build_taught(task_arguments(data_bin, "--teacher-path", teacher_path))
    expected = coefficients_at(taught, 5)
    taught.task.frozen_teacher.prepare(6, CPU, torch.bfloat16)
    taught.task.frozen_teacher.prepare(5, CPU, torch.bfloat16)
    assert torch.equal(taught.task.frozen_teacher.coefficients, expected)
    assert not torch.equal(expected.bfloat16().float(), expected)
