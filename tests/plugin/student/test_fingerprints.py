"""What the fingerprints of a run's inputs depend on."""

import shutil
from argparse import Namespace
from types import SimpleNamespace

import pytest
from fairseq.data import Dictionary

from fairseq_l2t.plugin.student.fingerprints import MAY_DIFFER, input_fingerprints


@pytest.fixture
def folder(data_bin, tmp_path):
    shutil.copytree(data_bin, tmp_path / "bin")
    return tmp_path / "bin"


def fingerprints(folder, train="train", valid="valid", **options):
    dictionaries = {side: Dictionary.load(str(folder / f"dict.{side}.txt")) for side in ("de", "en")}
    task = SimpleNamespace(
        source_dictionary=dictionaries["de"],
        target_dictionary=dictionaries["en"],
        cfg=SimpleNamespace(data=str(folder), source_lang="de", target_lang="en"),
    )
    cfg = SimpleNamespace(dataset=SimpleNamespace(train_subset=train, valid_subset=valid))
    return input_fingerprints(task, cfg, Namespace(**options))


def changed(before, after):
    assert before.keys() == after.keys()
    return {name.removeprefix("the ") for name in before if before[name] != after[name]}


def test_each_file_is_one_input(folder, data_bin):
    before = fingerprints(folder)
    assert fingerprints(data_bin) == before  # the same content in another folder
    for path, name in (
        ("dict.de.txt", "source dictionary"),
        ("dict.en.txt", "target dictionary"),
        ("train.de-en.de.bin", "training data"),
        ("train.de-en.en.idx", "training data"),
        ("valid.de-en.en.bin", "dev data"),
    ):
        content = (folder / path).read_bytes()
        lines = content.splitlines(keepends=True)
        swapped = [*lines[:3], lines[4], lines[3], *lines[5:]]
        (folder / path).write_bytes(b"".join(swapped) if path.startswith("dict") else content[:-1] + b"\xff")
        assert changed(before, fingerprints(folder)) == {name}
        (folder / path).write_bytes(content)
    assert fingerprints(folder) == before


def test_files_that_are_not_read_are_not_compared(folder):
    before = fingerprints(folder)
    for name in (
        "test.de-en.de.bin",
        "train.de-en.de.bin.old",
        "train.log",
        "valid1.de-en.de.bin",
        "trainer.de-en.de.bin",
    ):
        (folder / name).write_bytes(b"other")
    assert fingerprints(folder) == before
    (folder / "train1.de-en.de.bin").write_bytes(b"more")  # fairseq combines it with train
    assert changed(before, fingerprints(folder)) == {"training data"}


def test_source_and_target_exchanged(folder):
    before = fingerprints(folder)
    for ending in ("bin", "idx"):
        source, target = (folder / f"train.de-en.{side}.{ending}" for side in ("de", "en"))
        first, second = source.read_bytes(), target.read_bytes()
        source.write_bytes(second)
        target.write_bytes(first)
    assert changed(before, fingerprints(folder)) == {"training data"}


def test_initial_weights(folder, tmp_path):
    weights = tmp_path / "checkpoint.pt"
    weights.write_bytes(b"one")
    before = fingerprints(folder, student_init=str(weights), encoder_embed_path=None)
    weights.write_bytes(b"two")
    after = fingerprints(folder, student_init=str(weights), encoder_embed_path=None)
    assert changed(before, after) == {"weights of --student-init"}
    assert "the weights of --student-init" in MAY_DIFFER and "the target dictionary" not in MAY_DIFFER
