"""Rows 3 to 10 of the fault table, each beside the control that the intact file loads."""

import copy
import hashlib
import math
import os
import pickle
import random
import resource
import struct
import subprocess
import sys

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fairseq_l2t.storage import TeacherFileError, Vocabulary, load_teacher
from tests.storage.files import (
    SYMBOLS,
    VOCABULARY,
    Trap,
    content,
    foreign_safetensors,
    make_teacher,
    raw_safetensors,
    save,
    sealed_header,
    without_privileges,
    write,
)


@pytest.fixture
def path(tmp_path):
    path = save(tmp_path / "teacher.safetensors")
    load_teacher(path, vocabulary=VOCABULARY)
    return path


def refusal(path, **options):
    with pytest.raises(TeacherFileError) as caught:
        load_teacher(path, **options)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


def header_end(raw):
    return 8 + int.from_bytes(raw[:8], "little")


def test_row_3_cut_anywhere(path):
    raw = path.read_bytes()
    end = header_end(raw)
    for size in (0, 1, 7, 8, 9, end // 2, end - 1, end, (end + len(raw)) // 2, len(raw) - 1):
        path.write_bytes(raw[:size])
        message = refusal(path)
        assert "cut" in message
        assert f"({size} bytes)" in message
    path.write_bytes(raw + b"\0")
    assert "tensors need" in refusal(path)
    path.write_bytes(raw)
    load_teacher(path)


def test_row_3_a_given_path_never_falls_back(path):
    copy = path.with_name("teacher_last.safetensors")
    path.rename(copy)
    assert "No such file" in refusal(path)
    load_teacher(copy)


def flip(raw, bit):
    damaged = bytearray(raw)
    damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


def test_row_4_every_bit_of_the_header(path):
    raw = path.read_bytes()
    with open(path, "r+b", buffering=0) as file:
        for bit in range(8 * header_end(raw)):
            os.pwrite(file.fileno(), flip(raw, bit)[: header_end(raw)], 0)
            assert "header" in refusal(path), f"bit {bit}"
        os.pwrite(file.fileno(), raw, 0)
    load_teacher(path)


def test_row_4_every_bit_of_the_tensors(path):
    raw = path.read_bytes()
    begin = header_end(raw)
    names = ["queries", "values"]
    sizes = {"queries": 3 * 3 * 4, "values": 8 * 3 * 4}
    order = sorted(names, key=lambda name: raw.index(b'"%s":{"dtype"' % name.encode()))
    first_end = begin + sizes[order[0]]
    with open(path, "r+b", buffering=0) as file:
        for bit in range(8 * begin, 8 * len(raw)):
            os.pwrite(file.fileno(), flip(raw, bit)[begin:], begin)
            assert f"tensor '{order[bit // 8 >= first_end]}' is damaged" in refusal(path), f"bit {bit}"


class TestRow5:
    def refuse(self, tmp_path, raw, word):
        path = tmp_path / "teacher.safetensors"
        path.write_bytes(raw)
        message = refusal(path)
        assert word in message
        assert "not opened" in message
        assert not (tmp_path / "trapped").exists()

    @pytest.mark.parametrize("protocol", [2, 3, 4, 5])
    def test_pickle(self, tmp_path, protocol):
        self.refuse(tmp_path, pickle.dumps(Trap(tmp_path / "trapped"), protocol), "pickle")

    def test_zip_archive_of_torch_save(self, tmp_path):
        torch.save({"values": Trap(tmp_path / "trapped")}, tmp_path / "checkpoint.pt")
        self.refuse(tmp_path, (tmp_path / "checkpoint.pt").read_bytes(), "zip")

    def test_legacy_torch_save(self, tmp_path):
        state = {"values": Trap(tmp_path / "trapped")}
        torch.save(state, tmp_path / "checkpoint.pt", _use_new_zipfile_serialization=False)
        self.refuse(tmp_path, (tmp_path / "checkpoint.pt").read_bytes(), "pickle")

    @pytest.mark.parametrize("protocol", [0, 1])
    def test_pickles_without_a_magic_number(self, tmp_path, protocol):
        path = tmp_path / "teacher.safetensors"
        path.write_bytes(pickle.dumps(Trap(tmp_path / "trapped"), protocol))
        refusal(path)
        assert not (tmp_path / "trapped").exists()

    def test_control_the_trap_works(self, tmp_path):
        pickle.loads(pickle.dumps(Trap(tmp_path / "trapped")))
        assert (tmp_path / "trapped").exists()


HUGE = 1 << 40


@pytest.mark.parametrize(
    "raw",
    [
        raw_safetensors({"values": {"dtype": "F32", "shape": [HUGE], "data_offsets": [0, 4 * HUGE]}}),
        raw_safetensors({"values": {"dtype": "F32", "shape": [HUGE], "data_offsets": [0, 8]}}, b"12345678"),
        raw_safetensors({"values": {"dtype": "F32", "shape": [HUGE, 0], "data_offsets": [0, HUGE]}}),
        raw_safetensors({"values": {"dtype": "U8", "shape": [4], "data_offsets": [HUGE, HUGE + 4]}}, b"1234"),
        raw_safetensors({"values": {"dtype": "U8", "shape": [-4], "data_offsets": [4, 0]}}, b"1234"),
        raw_safetensors({"values": {"dtype": "U8", "shape": [True], "data_offsets": [0, 1]}}, b"1"),
        raw_safetensors({"values": {"dtype": "U8", "shape": [1], "data_offsets": [0]}}, b"1"),
        raw_safetensors({"values": {"dtype": "C64", "shape": [1], "data_offsets": [0, 8]}}, b"12345678"),
        raw_safetensors({"values": 3}),
        raw_safetensors({"__metadata__": 3}),
        raw_safetensors({"__metadata__": {"fairseq_l2t": "[" * 100_000}}),
        raw_safetensors({"__metadata__": {"fairseq_l2t": "[]"}}),
        raw_safetensors(b"[" * 100_000),
        raw_safetensors(b'{"values": ' + b"1" * 5000 + b"}"),
        raw_safetensors([]),
        b"\xff" * 7 + b"\x7f" + b"{}",
        foreign_safetensors(),
    ],
)
def test_row_6_headers_that_lie(tmp_path, raw):
    (tmp_path / "t").write_bytes(raw)
    refusal(tmp_path / "t")


def test_sealed_header_that_only_the_library_refuses(path):
    # Metadata that are no strings, under a digest that is right.
    raw = path.read_bytes()
    header, data = raw[8 : header_end(raw)], raw[header_end(raw) :]
    header = header.replace(b'"__metadata__":{', b'"__metadata__":{"number":3,', 1)
    place = header.index(b"header_sha256") + len(rb"header_sha256\":\"")
    unsealed = struct.pack("<Q", len(header)) + header[:place] + b"0" * 64 + header[place + 64 :]
    digest = hashlib.sha256(unsealed).hexdigest().encode()
    path.write_bytes(unsealed[: 8 + place] + digest + unsealed[8 + place + 64 :] + data)
    assert "the header is damaged" in refusal(path)


def test_row_6_metadata_that_lie_allocate_nothing(tmp_path):
    # Right digests, and a vocabulary whose W would take 12 TiB: the shapes must be compared first.
    huge = {"size": HUGE, "sha256": "0" * 64}
    path = write(tmp_path / "t", vocabulary=huge)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert f"expected [{HUGE}, 3]" in refusal(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB


@pytest.mark.parametrize(("version", "shown"), [(2, "2"), (0, "0"), ("1", '"1"'), (None, "null"), (1.5, "1.5")])
def test_row_7_other_format_versions(tmp_path, version, shown):
    message = refusal(write(tmp_path / "t", version=version))
    assert f"format version {shown}; this program reads version 1" in message
    load_teacher(write(tmp_path / "t", version=1))


def test_settings_are_complete(tmp_path):
    settings = {"loss_scale": 40.0, "cross_entropy_mix": 0.0, "total_updates": 5, "cross_entropy_updates": 0}
    settings |= {"extra": {}, "loss_level": "sentence"}
    assert load_teacher(write(tmp_path / "t", settings=settings)).settings.loss_level == "sentence"
    del settings["loss_level"]
    assert 'metadata: settings ["cross_entropy_mix", ' in refusal(write(tmp_path / "t", settings=settings))
    assert "settings None; expected an object" in refusal(write(tmp_path / "t", settings=None))


def test_row_8_other_vocabularies(path):
    longer = Vocabulary.of_symbols([*SYMBOLS, "new"])
    message = refusal(path, vocabulary=longer)
    assert "of 8 entries; this one has 9" in message
    swapped = Vocabulary.of_symbols([*SYMBOLS[:-2], SYMBOLS[-1], SYMBOLS[-2]])
    message = refusal(path, vocabulary=swapped)
    assert VOCABULARY.sha256 in message
    assert swapped.sha256 in message
    load_teacher(path, vocabulary=Vocabulary.of_symbols(SYMBOLS))


def test_row_9_wrong_tensors_are_all_listed(tmp_path):
    tensors = {"values": torch.ones(9, 3, dtype=torch.int32), "bias": torch.ones(2), "extra": torch.ones(())}
    message = refusal(write(tmp_path / "t", tensors))
    for problem in (
        "tensor 'queries' is missing",
        "tensor 'bias' is not expected",
        "tensor 'extra' is not expected",
        "tensor 'values' has shape [9, 3]; expected [8, 3]",
        "tensor 'values' has dtype I32; expected F32 or F64",
    ):
        assert problem in message


def test_row_9_nan_is_listed_for_each_tensor(tmp_path):
    tensors = {name: tensor.detach().clone() for name, tensor in make_teacher().named_parameters()}
    load_teacher(write(tmp_path / "t", tensors))
    tensors["values"][2, 1] = math.nan
    tensors["queries"][0, 0] = -math.inf
    message = refusal(write(tmp_path / "t", tensors))
    assert "tensor 'queries' holds NaN or infinity; tensor 'values' holds NaN or infinity" in message


def test_row_9_float64_beyond_float32(tmp_path):
    tensors = {name: tensor.detach().double() for name, tensor in make_teacher().named_parameters()}
    tensors["values"][0, 0] = 1e300
    path = write(tmp_path / "t", tensors)
    assert "tensor 'values'" in refusal(path)
    load_teacher(path, dtype=torch.float64)


@pytest.mark.parametrize(
    "changes",
    [
        {"coefficient_form": "full"},
        {"coefficient_form": "smoothed"},  # one row short
        {"coefficient_form": ["diagonal"]},
        {"features": "progress"},
        {"features": ["progress", "progress", "x"]},
        {"features": []},
        {"features": [1, 2, 3]},
        {"keys": 0},
        {"keys": True},
        {"keys": 1 << 70},
        {"vocabulary": {"size": 8}},
        {"vocabulary": []},
        {"settings": {}},
        {"settings": {**content()["settings"], "loss_scale": -1}},
        {"settings": {**content()["settings"], "loss_scale": 1e30}},
        {"settings": {**content()["settings"], "loss_scale": 10**400}},
        {"settings": {**content()["settings"], "total_updates": 10**400}},
        {"settings": {**content()["settings"], "total_updates": 50}},  # all of them with cross-entropy
        {"settings": {**content()["settings"], "unknown": 1}},
    ],
)
def test_metadata_outside_their_ranges(tmp_path, changes):
    refusal(write(tmp_path / "t", **changes))


def test_run_state_given_as_teacher(tmp_path):
    assert "kind 'run state'; expected 'teacher'" in refusal(write(tmp_path / "t", kind="run state"))


def test_row_10_paths(tmp_path):
    assert "No such file" in refusal(tmp_path / "absent")
    assert "a directory" in refusal(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    assert "pipe; expected a file" in refusal(tmp_path / "pipe")


def test_row_10_unreadable(open_folder):
    path = save(open_folder / "t")
    path.chmod(0)
    with without_privileges():
        assert "Permission denied" in refusal(path)
    path.chmod(0o644)
    with without_privileges():
        load_teacher(path)


def test_random_bytes_are_refused_cleanly(tmp_path):
    raw = save(tmp_path / "t").read_bytes()
    generator = random.Random(0)
    for _ in range(300):
        damaged = bytearray(raw)
        begin = generator.randrange(len(raw))
        span = generator.randrange(1, 40)
        damaged[begin : begin + span] = generator.randbytes(generator.randrange(60))
        if bytes(damaged) != raw:
            (tmp_path / "t").write_bytes(damaged)
            refusal(tmp_path / "t")


def test_row_23_checks_hold_under_optimisation(path):
    path.write_bytes(path.read_bytes()[:-1])
    code = "import sys; from fairseq_l2t.storage import load_teacher; load_teacher(sys.argv[1])"
    done = subprocess.run([sys.executable, "-O", "-c", code, path], capture_output=True, text=True)
    assert done.returncode == 1
    assert "TeacherFileError" in done.stderr


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("new", "a PyTorch checkpoint (a zip archive of torch.save), not a safetensors file"),
        ("old", "a PyTorch checkpoint (a pickle of torch.save), not a safetensors file"),
        (b"PK\3\4 other archive", "a zip archive, not a safetensors file"),
        ("the house\n" * 400, "not a safetensors file: it begins like a text file"),
        ("das Haus, überall\n", "not a safetensors file: it begins like a text file"),
        ('{"values": {"dtype": "F32"}}', "not a safetensors file: it begins like a text file"),
        (bytes(5000), "not a safetensors file, or the header is damaged"),
        (b"\2\0\0\0", "not a safetensors file, or the header is cut: 4 bytes"),
    ],
)
def test_files_of_other_programs_are_named_first(tmp_path, kind, message):
    path = tmp_path / "t"
    if kind in ("new", "old"):
        torch.save({"model": torch.ones(2)}, path, _use_new_zipfile_serialization=kind == "new")
    else:
        path.write_bytes(kind.encode() if isinstance(kind, str) else kind)
    assert refusal(path).startswith(f"{path}: {message}")


def sparse(path, head, size):
    with open(path, "wb") as file:
        file.write(head)
        file.truncate(size)


def test_sizes_beyond_the_memory_are_refused_before_they_are_read(tmp_path):
    """Sparse files: the length of the header, and a sealed header of tensors that the file has room for."""
    path, size = tmp_path / "t", 1 << 42
    sparse(path, struct.pack("<Q", size - 8) + b"{", size)
    assert f"it claims {size - 8} bytes; at most 100000000" in refusal(path)
    entries = size // 12
    sealed = sealed_header(
        {"queries": [3, 3], "values": [entries, 3]}, vocabulary={"size": entries, "sha256": "0" * 64}
    )
    sparse(path, sealed, len(sealed) + 4 * (9 + 3 * entries))
    assert "more than the free memory can hold twice" in refusal(path)


def test_numbers_of_thousands_of_digits(tmp_path):
    """Control: a header of the same form with a small shape is refused for what it lacks."""
    long = "1" * 4000
    for shape, message in ((f"{long},{long}", "a number of 4000 digits; at most 100"), ("1", "no 'fairseq_l2t'")):
        header = f'{{"values":{{"dtype":"U8","shape":[{shape}],"data_offsets":[0,1]}}}}'
        (tmp_path / "t").write_bytes(raw_safetensors(header.encode(), b"1"))
        assert message in refusal(tmp_path / "t")
    huge = [2**62] * 5000
    (tmp_path / "t").write_bytes(
        raw_safetensors({"values": {"dtype": "U8", "shape": huge, "data_offsets": [0, 1]}}, b"1")
    )
    assert len(refusal(tmp_path / "t")) < 1000


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.integers(0, 10**50) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=6,
)


@settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_any_header_is_refused(tmp_path, data):
    """A field of a whole file is replaced by any JSON value, under a right digest or without one."""
    fields = [("coefficient_form",), ("features",), ("keys",), ("vocabulary",), ("settings",)]
    fields += [("vocabulary", name) for name in ("size", "sha256", "new")]
    fields += [("settings", name) for name in ("loss_scale", "total_updates", "extra", "loss_level", "new\n")]
    changed, shapes, value = copy.deepcopy(content()), {"queries": [3, 3], "values": [8, 3]}, data.draw(json_values)
    *parents, name = data.draw(st.sampled_from([*fields, ("shape", "values"), ("shape", "\ud800\n")]))
    if parents == ["shape"]:
        shapes[name] = value
    else:
        (changed[parents[0]] if parents else changed)[name] = value
    raw = sealed_header(shapes, **changed)
    if not data.draw(st.integers(0, 3)):
        raw = raw.replace(b'"shape":', data.draw(st.binary(max_size=4)) + b'"shape":', 1)
    (tmp_path / "t").write_bytes(raw + bytes(4 * (9 + 24)))
    refusal(tmp_path / "t")  # the digests of the tensors are wrong in any case
