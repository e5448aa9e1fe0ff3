import dataclasses
import hashlib
import math
import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fairseq_l2t.core import Teacher
from fairseq_l2t.storage import (
    TeacherFileError,
    TeacherSettings,
    Vocabulary,
    load_teacher,
    save_teacher,
    vocabulary_fingerprint,
)
from tests.storage.files import (
    FEATURES,
    SETTINGS,
    SYMBOLS,
    VOCABULARY,
    files_end_at,
    make_teacher,
    save,
)


def test_round_trip(tmp_path):
    teacher = make_teacher(seed=3)
    path = tmp_path / "teacher.safetensors"
    save_teacher(path, teacher, VOCABULARY, SETTINGS)
    loaded = load_teacher(path, vocabulary=VOCABULARY)
    assert (loaded.vocabulary, loaded.settings, loaded.path) == (VOCABULARY, SETTINGS, path)
    assert loaded.teacher.features == tuple(FEATURES)
    for name, parameter in loaded.teacher.named_parameters():
        assert parameter.dtype == torch.float32
        assert not parameter.requires_grad
        assert torch.equal(parameter, teacher.get_parameter(name))
    assert not loaded.teacher.training
    state = torch.tensor([0.5, 0.2, 0.9])
    assert torch.equal(loaded.teacher(state), teacher(state))
    control = load_teacher(save(tmp_path / "control", seed=4)).teacher
    assert not torch.equal(control(state), teacher(state))


def test_float64_is_kept_in_the_file_and_cast_on_loading(tmp_path):
    teacher = make_teacher(dtype=torch.float64)
    save_teacher(tmp_path / "t", teacher, VOCABULARY, SETTINGS)
    assert load_teacher(tmp_path / "t").teacher.values.dtype == torch.float32
    exact = load_teacher(tmp_path / "t", dtype=torch.float64).teacher
    assert torch.equal(exact.values, teacher.values)
    assert exact.values.dtype == torch.float64


def test_same_teacher_same_bytes(tmp_path):
    contents = {save(tmp_path / str(number)).read_bytes() for number in range(5)}
    assert len(contents) == 1
    assert save(tmp_path / "control", seed=1).read_bytes() not in contents


def test_what_cannot_be_a_teacher_file_is_not_written(tmp_path):
    path = save(tmp_path / "t")
    before = path.read_bytes()
    nan = make_teacher()
    with torch.no_grad():
        nan.queries[1, 1] = math.nan
    other = Vocabulary.of_symbols(SYMBOLS[:-1])
    for teacher, vocabulary, message in (
        (nan, VOCABULARY, "queries hold NaN"),
        (make_teacher(), other, "8 entries; the vocabulary has 7"),
        (make_teacher(dtype=torch.bfloat16), VOCABULARY, "bfloat16"),
    ):
        with pytest.raises(ValueError, match=message):
            save_teacher(path, teacher, vocabulary, SETTINGS)
    assert path.read_bytes() == before


def test_disk_full_at_random_bytes_leaves_the_old_teacher(tmp_path):
    path = save(tmp_path / "t", seed=0)
    before = path.read_bytes()
    for size in random.Random(0).sample(range(len(before)), 20):
        with files_end_at(size), pytest.raises(OSError, match=str(path)):
            save(path, seed=1)
        assert path.read_bytes() == before
        assert [entry.name for entry in tmp_path.iterdir()] == ["t"]
    assert load_teacher(path).vocabulary == VOCABULARY


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss_scale": 0.0}, "--loss-scale"),
        ({"loss_scale": math.nan}, "--loss-scale"),
        ({"loss_scale": 1e30}, r"--loss-scale: 1e\+30; expected a number above 0 and at most 10000000"),
        ({"loss_scale": "4"}, "loss_scale: '4'"),
        ({"total_updates": 10**10}, "total_updates: 10000000000; expected a whole number from 1 to 1000000000"),
        ({"cross_entropy_updates": 5}, "cross_entropy_updates: 5; expected less than the 5 updates of a life"),
        ({"cross_entropy_mix": 1.5}, "--cross-entropy-mix"),
        ({"loss_level": "word"}, "--loss-level: 'word'"),
        ({"total_updates": 0}, "total_updates: 0"),
        ({"total_updates": 10.5}, "total_updates: 10.5"),
        ({"cross_entropy_updates": -1}, "cross_entropy_updates: -1"),
        ({"extra": {"lr": math.nan}}, "extra"),
        ({"extra": {"betas": (0.9, 0.98)}}, "extra"),
        ({"extra": {1: 2}}, "extra"),
        ({"extra": {"path": object()}}, "extra"),
        ({"extra": []}, "extra"),
    ],
)
def test_settings_refuse(changes, message):
    values = {"loss_scale": 4.0, "cross_entropy_mix": 0.0, "total_updates": 5, "cross_entropy_updates": 0}
    TeacherSettings(**values)
    with pytest.raises(ValueError, match=message):
        TeacherSettings(**{**values, **changes})


@pytest.mark.parametrize(("size", "sha256"), [(0, "0" * 64), (3, "0" * 63), (3, "G" * 64), (True, "0" * 64)])
def test_vocabulary_refuses(size, sha256):
    with pytest.raises(ValueError, match="vocabulary"):
        Vocabulary(size, sha256)


def test_fingerprint_of_record():
    # The encoding is part of the file format: it may not drift.
    encoded = b"3:<s>5:\xc3\xa9\xc3\xa9a0:"
    assert vocabulary_fingerprint(["<s>", "ééa", ""]) == hashlib.sha256(encoded).hexdigest()


@given(st.lists(st.text("ab:1 \n"), max_size=4), st.lists(st.text("ab:1 \n"), max_size=4))
def test_fingerprints_are_equal_only_for_equal_lists(first, second):
    assert (vocabulary_fingerprint(first) == vocabulary_fingerprint(second)) == (first == second)


def test_errors_are_one_line(tmp_path):
    (tmp_path / "t").write_bytes(b"\x00\n" * 50)
    with pytest.raises(TeacherFileError) as caught:
        load_teacher(tmp_path / "t")
    assert "\n" not in str(caught.value)


def test_a_full_phi(tmp_path):
    teacher = Teacher(FEATURES, 3, keys=2, form="full")
    classes = Vocabulary.of_symbols(["0", "1", "2"])
    path = tmp_path / "teacher.safetensors"
    save_teacher(path, teacher, classes, SETTINGS)
    loaded = load_teacher(path, vocabulary=classes, forms=("full",)).teacher
    assert (loaded.form, loaded.entries, loaded.coefficient_count) == ("full", 3, 9)
    assert torch.equal(loaded.values, teacher.values)
    message = r"form 'full' \(of a classifier\); this program reads 'diagonal' and 'smoothed'"
    with pytest.raises(TeacherFileError, match=message):
        load_teacher(path)
    save(tmp_path / "control")
    with pytest.raises(TeacherFileError, match=r"'diagonal' \(of a translation model\); this program reads 'full'"):
        load_teacher(tmp_path / "control", forms=("full",))


def test_a_smoothed_phi(tmp_path):
    words = Vocabulary.of_symbols(["a", "b", "c"])
    path = tmp_path / "teacher.safetensors"
    teacher = Teacher(FEATURES, 3, keys=2, form="smoothed", initial_off_diagonal=0.05)
    save_teacher(path, teacher, words, SETTINGS)
    loaded = load_teacher(path, vocabulary=words).teacher
    assert (loaded.form, loaded.entries, loaded.coefficient_count) == ("smoothed", 3, 4)
    assert torch.equal(loaded.values, teacher.values)
    with pytest.raises(TeacherFileError, match=r"'smoothed' \(of a translation model\); this program reads 'full'"):
        load_teacher(path, forms=("full",))


def test_the_fingerprint_of_a_teacher_is_that_of_what_it_teaches(tmp_path):
    def fingerprint(seed=0, **settings):
        save_teacher(tmp_path / "t", make_teacher(seed), VOCABULARY, dataclasses.replace(SETTINGS, **settings))
        return load_teacher(tmp_path / "t").sha256

    first = fingerprint()
    assert fingerprint(extra={"arguments": ["elsewhere"]}) == first
    others = [fingerprint(seed=1), fingerprint(loss_scale=41.0), fingerprint(loss_level="sentence")]
    others += [fingerprint(total_updates=999), fingerprint(cross_entropy_updates=49)]
    assert len({first, *others}) == 6
