"""Bad input at the command line: one clear line, an exit code, and nothing half-written."""

import shutil
from pathlib import Path

import pytest

import fairseq_l2t
from fairseq_l2t.storage import load_teacher
from tests.end_to_end import preloaded
from tests.end_to_end.settings import MODEL, RUN_FOLDER, TRAINING, contents, teacher_command

PLUGIN = Path(fairseq_l2t.__file__).parent


def refusal(arguments, folder, code=2):
    """Run l2t-train-teacher, which must refuse; return its one line, having looked that nothing was left behind."""
    ended = preloaded.run("l2t-train-teacher", arguments, folder, expect=code)
    assert "Traceback" not in ended.stderr
    errors = [line for line in ended.stderr.splitlines() if "error:" in line]
    assert len(errors) == 1
    assert ended.stderr.endswith(errors[0] + "\n")
    run_folder = folder / RUN_FOLDER
    assert not run_folder.exists() or contents(run_folder) == {}
    return errors[0].removeprefix("l2t-train-teacher: error: ")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--teacher-kyes", "3"], "unrecognized arguments: --teacher-kyes 3; did you mean --teacher-keys?"),
        (["--unroll-length", "0"], "--unroll-length: 0; expected a whole number of at least 1"),
        (["--unroll-length", "7"], "--unroll-length: 7; expected a whole number of at least 1 and at most 6 (--total-"),
        (
            ["--lr", "0"],
            "--lr: 0.0; expected one value or more, separated by commas, each a number above 0 and at most",
        ),
        (["--lr", "nan"], "argument --lr: invalid value: 'nan'; expected finite numbers above 0"),
        (["--teacher-lr", "0"], "--teacher-lr: 0; expected a number above 0 and at most 100"),
        (["--teacher-lr", "nan"], "--teacher-lr: nan; expected a number above 0 and at most 100"),
        (["--samples", "0"], "--samples: 0; expected a whole number of at least 2"),
        (["--risk-alpha", "inf"], "--risk-alpha: inf; expected a number above 0 and at most 1000"),
        (["--teacher-keys", "0"], "--teacher-keys: 0; expected a whole number of at least 1"),
        (["--batch-size", "0"], "--batch-size: 0; expected a whole number of at least 1 and at most 10000000"),
        (["--clip-norm", "nan"], "--clip-norm: nan; expected a number of at least 0 and at most 1000000000"),
        (["--seed", "-1"], "--seed: -1; expected a whole number of at least 0 and at most 2147483647"),
        (["--objective", "bleu"], "--objective: bleu; expected one of likelihood, inverse-perplexity, calibrated-"),
        (["--fp16"], "--fp16: second derivatives in half precision are not accurate; use --bf16 or float32"),
        (["--optimizer", "adamax"], "--optimizer: adamax has no adjoint; expected adam, nag, sgd or adagrad"),
        (["--encoder-attention-heads", "3"], "--encoder-attention-heads: 3; expected a divisor of --encoder-embed-dim"),
        (["--max-tokens", "3"], "The dataset is empty."),
        (["--max-source-positions", "2"], "dev split valid: none of its 60 pairs is within the length limits (2,"),
        (["--student-init", "absent.pt"], "--student-init: absent.pt is not a file; expected a fairseq checkpoint"),
        (
            ["--save-dir", "/dev/null/run"],
            "--save-dir: /dev/null/run: Not a directory; expected a folder that can be written to",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_options_of_teacher_training(data_bin, tmp_path, more, message):
    assert refusal(teacher_command(data_bin, *more), tmp_path / "work").startswith(message)


def test_data_of_teacher_training(data_bin, tmp_path):
    absent = refusal(teacher_command("absent"), tmp_path / "absent")
    assert absent == "data: absent is not a folder; expected one that fairseq-preprocess has written"
    (tmp_path / "empty").mkdir()
    assert "has no file such as train.de-en.de.idx" in refusal(teacher_command(tmp_path / "empty"), tmp_path / "work")


def overlapping(data_bin, folder):
    """A DATA_BIN whose dev pairs are its training pairs."""
    shutil.copytree(data_bin, folder)
    for path in folder.glob("train.*"):
        shutil.copy(path, path.with_name(path.name.replace("train", "valid")))
    return folder


def test_dev_pairs_that_also_stand_in_train(data_bin, tmp_path):
    data = overlapping(data_bin, tmp_path / "data")
    message = refusal(teacher_command(data), tmp_path / "refused")
    assert message.startswith("dev split valid: 400 of its pairs also occur in the training data; remove them, or give")
    allowed = teacher_command(data, "--allow-dev-overlap", "--teacher-updates", "1")
    ended = preloaded.run("l2t-train-teacher", allowed, tmp_path / "allowed")
    assert "WARNING | fairseq_l2t.plugin.student.data | dev split valid: 400 of its pairs also occur" in ended.stdout


def test_empty_dev(data_bin, tmp_path):
    for side in ("de", "en"):
        (tmp_path / f"empty.{side}").touch()
    data = tmp_path / "data"
    shutil.copytree(data_bin, data)
    dictionaries = ["--srcdict", data_bin / "dict.de.txt", "--tgtdict", data_bin / "dict.en.txt"]
    pairs = ["--source-lang", "de", "--target-lang", "en", "--validpref", tmp_path / "empty"]
    preloaded.run("fairseq-preprocess", [*pairs, *dictionaries, "--destdir", data], tmp_path / "work")
    message = refusal(teacher_command(data), tmp_path / "work")
    assert message.startswith(f"split valid: {data}/valid.de-en.de.bin is empty; expected at least one pair")


def student_refusal(data, folder, teacher, *more):
    """Run fairseq-train, which must refuse in one line and nothing else; return that line."""
    command = [data, *MODEL, *TRAINING, "--max-update", "4", "--save-dir", "student", *more]
    command += ["--user-dir", PLUGIN, "--task", "l2t_dlf", "--criterion", "dynamic_teacher_loss"]
    command += ["--teacher-path", teacher] if teacher else []
    ended = preloaded.run("fairseq-train", command, folder, expect=2)
    assert "loaded 400 examples" not in ended.stdout  # refused before the data is read
    assert not list(folder.glob("student/*"))
    assert "Traceback" not in ended.stderr
    last = ended.stderr.splitlines()[-1]
    assert last.startswith("fairseq-train: error: ")
    return last.removeprefix("fairseq-train: error: ")


def with_other_dictionary(data_bin, folder, change):
    """A DATA_BIN with the same sentences and another target dictionary."""
    shutil.copytree(data_bin, folder)
    dictionary = folder / "dict.en.txt"
    lines = dictionary.read_text(encoding="utf-8").splitlines()
    dictionary.write_text("\n".join(change(lines)) + "\n", encoding="utf-8")
    return folder


def test_teacher_files_of_a_student(data_bin, uninterrupted, tmp_path):
    whole = uninterrupted / RUN_FOLDER / "teacher.safetensors"
    assert student_refusal(data_bin, tmp_path / "none", None).startswith("--teacher-path: not given")
    assert "absent.safetensors" in student_refusal(data_bin, tmp_path / "absent", "absent.safetensors")
    assert "a directory; expected a file" in student_refusal(data_bin, tmp_path / "folder", tmp_path)
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(whole.read_bytes()[:-1])
    assert str(cut) in student_refusal(data_bin, tmp_path / "cut", cut)
    grown = with_other_dictionary(data_bin, tmp_path / "grown", lambda lines: [*lines, "madeupword 1"])
    assert "entries" in student_refusal(grown, tmp_path / "other_size", whole)
    swapped = with_other_dictionary(data_bin, tmp_path / "swapped", lambda lines: [lines[1], lines[0], *lines[2:]])
    assert load_teacher(whole).vocabulary.sha256[:8] in student_refusal(swapped, tmp_path / "other_order", whole)
    half = student_refusal(data_bin, tmp_path / "half", whole, "--cpu", "--fp16")
    assert half == "--fp16: fairseq-train needs a GPU for it, and uses none here; leave it out to train in float32"
