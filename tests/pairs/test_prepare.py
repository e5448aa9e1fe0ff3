"""Preparation of raw text: dropped pairs, refused input, and equal bytes from equal input."""

import shutil

import pytest

from fairseq_l2t.pairs import prepare as prepare_module
from fairseq_l2t.pairs.parallel_text import BadInput, read_lines, write_lines
from fairseq_l2t.pairs.prepare import PrepareSettings, main, prepare, reference_file

SETTINGS = PrepareSettings(vocabulary=150)


@pytest.fixture
def raw(raw_corpus, tmp_path):
    """A copy of the raw corpus that a test may change."""
    return shutil.copytree(raw_corpus, tmp_path / "raw")


@pytest.fixture(scope="module")
def prepared(raw_corpus, tmp_path_factory):
    return prepare(raw_corpus, tmp_path_factory.mktemp("prepared"), SETTINGS)


@pytest.fixture
def without_binarising(monkeypatch):
    """Leaves out the slow last step, for tests of what comes before it."""
    monkeypatch.setattr(prepare_module, "_binarise", lambda *arguments: None)


def test_data_bin_is_complete_and_joined(prepared):
    names = {path.name for path in prepared.iterdir()}
    for split in ("train", "valid", "test"):
        assert {f"{split}.de-en.{language}.{kind}" for language in ("de", "en") for kind in ("bin", "idx")} <= names
    assert (prepared / "dict.de.txt").read_bytes() == (prepared / "dict.en.txt").read_bytes()
    assert len(read_lines(reference_file(prepared))) == 30


def test_pieces_decode_to_the_raw_text(prepared, raw_corpus):
    pieces = read_lines(prepared.parent / "pieces" / "test.en")
    assert [line.replace(" ", "").replace("▁", " ").strip() for line in pieces] == read_lines(raw_corpus / "test.en")


def test_vocabulary_comes_from_train_alone(prepared, raw, tmp_path, without_binarising):
    for split, same in (("test", True), ("train", False)):  # the second is the control
        write_lines(raw / f"{split}.en", [line + " Ω" for line in read_lines(raw / f"{split}.en")])
        prepare(raw, tmp_path / split, SETTINGS)
        model = (tmp_path / split / "spm.model").read_bytes()
        assert (model == (prepared.parent / "spm.model").read_bytes()) is same


def test_same_input_same_bytes(prepared, raw_corpus, tmp_path):
    again = prepare(raw_corpus, tmp_path, SETTINGS)
    for path in prepared.iterdir():
        if path.name != "preprocess.log":  # it tells times and folders
            assert path.read_bytes() == (again / path.name).read_bytes(), path.name
    assert (prepared.parent / "spm.model").read_bytes() == (tmp_path / "spm.model").read_bytes()


def test_finished_work_is_kept_and_redone_for_other_settings(prepared, raw_corpus, tmp_path):
    """The second half is the control of the first."""
    output = tmp_path / "out"
    shutil.copytree(prepared.parent, output)
    before = (output / "bin" / "train.de-en.de.bin").stat().st_mtime_ns
    prepare(raw_corpus, output, SETTINGS)
    assert (output / "bin" / "train.de-en.de.bin").stat().st_mtime_ns == before
    prepare(raw_corpus, output, PrepareSettings(vocabulary=150, train_limit=100))
    assert (output / "bin" / "train.de-en.de.bin").stat().st_mtime_ns != before
    assert len(read_lines(output / "text" / "train.de")) == 100


def test_a_foreign_folder_is_not_removed(raw_corpus, tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "precious").touch()
    with pytest.raises(BadInput, match="was not made by python -m fairseq_l2t.pairs.prepare"):
        prepare(raw_corpus, tmp_path, SETTINGS)
    assert (tmp_path / "bin" / "precious").exists()


def test_a_damaged_record_is_named(raw_corpus, tmp_path, capsys):
    record = tmp_path / "bin" / "prepared.json"
    record.parent.mkdir()
    for content in ('{"vocab', "[1]", "\udcff"):
        record.write_bytes(content.encode("utf-8", "surrogateescape"))
        assert main([str(raw_corpus), "--output-dir", str(tmp_path)]) == 2
        assert f"{record}: " in capsys.readouterr().err
        assert record.exists()


def test_overlap_with_held_out_text_is_dropped_and_counted(raw, tmp_path, capsys, without_binarising):
    train, target = read_lines(raw / "train.de"), read_lines(raw / "train.en")
    train[5] = read_lines(raw / "test.de")[0]
    train[7] = "  " + read_lines(raw / "valid.de")[1].replace(" ", "\u00a0")  # the same but for its spaces
    target[9] = " "
    write_lines(raw / "train.de", train)
    write_lines(raw / "train.en", target)
    prepare(raw, tmp_path / "out", SETTINGS)
    assert "train: 300 pairs, 1 with an empty side left out, 2 left out because" in capsys.readouterr().out
    kept = read_lines(tmp_path / "out" / "text" / "train.de")
    assert kept == [line for index, line in enumerate(train) if index not in (5, 7, 9)]


def test_noise_is_that_of_the_corpus_generator(raw, tmp_path, without_binarising):
    prepare(raw, tmp_path / "out", PrepareSettings(vocabulary=150, noise=0.2, noise_seed=4))
    before, after = read_lines(raw / "train.en"), read_lines(tmp_path / "out" / "text" / "train.en")
    changed = [number for number, pair in enumerate(zip(before, after, strict=True), 1) if pair[0] != pair[1]]
    assert len(changed) == 60
    assert changed == [int(line) for line in read_lines(tmp_path / "out" / "train.noise.txt")]
    assert read_lines(raw / "test.en") == read_lines(tmp_path / "out" / "text" / "test.en")


def test_a_part_of_the_training_pairs_is_a_set_of_its_own(prepared, raw_corpus, tmp_path):
    data = prepare(raw_corpus, tmp_path, PrepareSettings(vocabulary=150, part=0.1))
    for language in ("de", "en"):
        whole = read_lines(tmp_path / "text" / f"train.{language}")
        assert read_lines(tmp_path / "text" / f"part.{language}") == whole[:30]
        assert (data / f"part.de-en.{language}.idx").is_file()
        assert (data / f"train.de-en.{language}.bin").read_bytes() == (
            prepared / f"train.de-en.{language}.bin"
        ).read_bytes()
    assert not list(data.glob("valid1*"))
    assert not list(prepared.glob("part*"))


def _remove(raw):
    (raw / "valid.en").unlink()


def _shorten(raw):
    write_lines(raw / "train.en", read_lines(raw / "train.en")[:-3])


def _empty(raw):
    (raw / "test.de").write_bytes(b"")


def _blank(raw):
    write_lines(raw / "test.de", ["", *read_lines(raw / "test.de")[1:]])


def _folder(raw):
    (raw / "test.de").unlink()
    (raw / "test.de").mkdir()


def _latin(raw):
    (raw / "test.de").write_bytes("Müll\n".encode("latin-1") * 30)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_remove, ["valid.en", "no such file"]),
        (_shorten, ["train.de has 300 lines", "train.en has 297"]),
        (_empty, ["test.de", "empty"]),
        (_blank, ["test.de, line 1", "empty"]),
        (_folder, ["test.de", "a folder"]),
        (_latin, ["test.de", "not UTF-8"]),
    ],
)
def test_bad_text_is_refused_in_words(raw, tmp_path, capsys, damage, words):
    damage(raw)
    assert main([str(raw), "--output-dir", str(tmp_path / "out"), "--vocabulary", "150"]) == 2
    (message,) = capsys.readouterr().err.splitlines()
    assert all(word in message for word in words), message
    assert not (tmp_path / "out" / "bin").exists()


@pytest.mark.parametrize(
    ("option", "value"),
    [("--vocabulary", "0"), ("--noise", "2.0"), ("--part", "nan"), ("--train-limit", "-1"), ("--vocabulary", "20")],
)
def test_bad_options_are_named(raw_corpus, tmp_path, capsys, option, value):
    assert main([str(raw_corpus), "--output-dir", str(tmp_path), option, value]) == 2
    message = capsys.readouterr().err
    assert message.startswith("python -m fairseq_l2t.pairs.prepare: error: ")
    assert f"{option}: {value}, " in message
    assert option not in ("--noise", "--part") or "expected 0 (none) or a share up to 1" in message


def test_the_module_is_a_command(run_command, tmp_path):
    shown = run_command(["python", "-m", "fairseq_l2t.pairs.prepare", "--help"], cwd=tmp_path).stdout
    assert shown.startswith("usage: python -m fairseq_l2t.pairs.prepare ")
