import ast
import logging
import math
import os
import pickle
import random
import subprocess
import sys

import pytest
import torch

from fairseq_l2t.storage import RunStateError, load_run_state, save_run_state
from fairseq_l2t.storage.container import write_container
from fairseq_l2t.storage.run_state import DAMAGED_NAME, NEWEST_NAME, PREVIOUS_NAME
from tests.storage.files import Trap, files_end_at


def tensors(number=0):
    flat = torch.arange(6.0) + number
    return {
        "omega": flat,
        "a view of it": flat[2:4],
        "transposed": flat.view(2, 3).T,
        "again": flat,
        "double": torch.tensor([math.pi, -0.0, math.nan], dtype=torch.float64),
        "brain": torch.tensor([1.5, math.inf], dtype=torch.bfloat16),
        "half": torch.tensor([0.1], dtype=torch.float16),
        "whole": torch.tensor([[2**62, -1]]),
        "scalar": torch.tensor(7),
        "empty": torch.zeros(0, 3),
        "flags": torch.tensor([True, False]),
        "generator": torch.Generator().manual_seed(number).get_state(),
    }


def values(number=0):
    return {"update": number, "best": -math.inf, "lr": 0.1 + 0.2, "names": ["a", "ü"], "none": None}


def same(first, second):
    return first.dtype == second.dtype and torch.equal(
        first.view(-1).view(torch.uint8), second.reshape(-1).view(torch.uint8)
    )


def load(folder, number):
    loaded_tensors, loaded_values = load_run_state(folder)
    assert loaded_values == values(number)
    expected = tensors(number)
    assert list(sorted(loaded_tensors)) == sorted(expected)
    for name, tensor in expected.items():
        assert loaded_tensors[name].shape == tensor.shape
        assert same(loaded_tensors[name].contiguous(), tensor.contiguous()), name
    return loaded_tensors


def save(folder, number):
    save_run_state(folder, tensors(number), values(number))


def test_round_trip_keeps_bits_and_dtypes(tmp_path):
    save(tmp_path, 1)
    loaded = load(tmp_path, 1)
    generator = torch.Generator()
    generator.set_state(loaded["generator"])
    assert torch.equal(torch.rand(3, generator=generator), torch.rand(3, generator=torch.Generator().manual_seed(1)))
    loaded["omega"].add_(1)  # not a view of something read-only


def test_no_state_is_none(tmp_path):
    assert load_run_state(tmp_path) is None
    assert load_run_state(tmp_path / "absent") is None


def test_the_state_before_is_kept(tmp_path):
    for number in (1, 2, 3):
        save(tmp_path, number)
    load(tmp_path, 3)
    (tmp_path / NEWEST_NAME).rename(tmp_path / "elsewhere")
    load(tmp_path, 2)
    assert sorted(os.listdir(tmp_path)) == ["elsewhere", PREVIOUS_NAME]


def damages(raw):
    header_end = 8 + int.from_bytes(raw[:8], "little")
    for size in (0, 1, 7, header_end // 2, header_end, (header_end + len(raw)) // 2, len(raw) - 1):
        yield raw[:size]
    for bit in random.Random(0).sample(range(8 * len(raw)), 100):
        damaged = bytearray(raw)
        damaged[bit // 8] ^= 1 << bit % 8
        yield bytes(damaged)


def test_rows_3_and_4_previous_state_with_a_warning(tmp_path, caplog):
    save(tmp_path, 1)
    save(tmp_path, 2)
    newest = tmp_path / NEWEST_NAME
    raw = newest.read_bytes()
    for damaged in damages(raw):
        newest.write_bytes(damaged)
        caplog.clear()
        load(tmp_path, 1)
        (record,) = caplog.records
        assert record.levelno == logging.WARNING
        for words in (str(newest), f"({len(damaged)} bytes)", str(tmp_path / PREVIOUS_NAME)):
            assert words in record.getMessage()
    newest.write_bytes(raw)
    caplog.clear()
    load(tmp_path, 2)
    assert not caplog.records


def test_a_damaged_state_never_becomes_the_previous_one(tmp_path):
    save(tmp_path, 1)
    save(tmp_path, 2)
    os.truncate(tmp_path / NEWEST_NAME, 100)
    load(tmp_path, 1)
    assert (tmp_path / DAMAGED_NAME).stat().st_size == 100
    save(tmp_path, 3)
    os.truncate(tmp_path / NEWEST_NAME, 100)
    load(tmp_path, 1)


def test_both_damaged(tmp_path):
    save(tmp_path, 1)
    save(tmp_path, 2)
    for name in (NEWEST_NAME, PREVIOUS_NAME):
        os.truncate(tmp_path / name, 50)
    with pytest.raises(RunStateError) as caught:
        load_run_state(tmp_path)
    assert NEWEST_NAME in str(caught.value)
    assert PREVIOUS_NAME in str(caught.value)


def test_row_5_pickle(tmp_path):
    (tmp_path / NEWEST_NAME).write_bytes(pickle.dumps(Trap(tmp_path / "trapped")))
    with pytest.raises(RunStateError, match="pickle"):
        load_run_state(tmp_path)
    assert not (tmp_path / "trapped").exists()


def test_a_newer_version_is_no_damage(tmp_path):
    save(tmp_path, 1)
    save(tmp_path, 2)
    write_container(tmp_path / NEWEST_NAME, "run state", 2, {"values": {}}, {})
    with pytest.raises(RunStateError, match="format version 2; this program reads version 1"):
        load_run_state(tmp_path)


def test_row_15_disk_full_leaves_both_states(tmp_path):
    save(tmp_path, 1)
    save(tmp_path, 2)
    size = (tmp_path / NEWEST_NAME).stat().st_size
    for limit in random.Random(0).sample(range(size), 20):
        with files_end_at(limit), pytest.raises(OSError, match=NEWEST_NAME):
            save(tmp_path, 3)
        assert sorted(os.listdir(tmp_path)) == sorted([NEWEST_NAME, PREVIOUS_NAME])
    load(tmp_path, 2)
    (tmp_path / NEWEST_NAME).unlink()
    load(tmp_path, 1)


def test_stopped_between_the_two_renames(tmp_path, caplog):
    save(tmp_path, 1)
    os.replace(tmp_path / NEWEST_NAME, tmp_path / PREVIOUS_NAME)
    load(tmp_path, 1)
    assert "the run ended during a write" in caplog.text


@pytest.mark.parametrize("bad", [{"best": math.nan}, {"pair": (1, 2)}, {1: 2}, {"tensor": torch.ones(1)}])
def test_values_that_would_change_are_refused(tmp_path, bad):
    with pytest.raises(ValueError, match="run state"):
        save_run_state(tmp_path, {}, bad)
    assert load_run_state(tmp_path) is None


KILLED_WRITERS = """
import os, random, signal, sys, time
import torch
from fairseq_l2t.storage import load_run_state, lock_run_folder, save_run_state

torch.set_num_threads(1)  # a thread pool does not survive a fork
folder, moments, last = sys.argv[1], random.Random(0), 0
for _ in range(25):
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)  # should the parent die, the next write to the pipe ends the child
        for number in range(last + 1, 10**6):
            save_run_state(folder, {"omega": torch.full((50_000,), float(number))}, {"update": number})
            os.write(writer, b".")
    os.read(reader, 1)  # at least one state is written
    time.sleep(moments.uniform(0, 0.02))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(reader), os.close(writer)
    tensors, values = load_run_state(folder)
    if not bool((tensors["omega"] == values["update"]).all()) or values["update"] <= last:
        sys.exit(f"state of update {values['update']} after {last}")
    last = values["update"]
with lock_run_folder(folder):
    print(sorted(os.listdir(folder)))
"""


def test_row_1_killed_at_random_moments_also_inside_a_write(tmp_path):
    command = [sys.executable, "-c", KILLED_WRITERS, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    # Beside the states only the lock: what the killed ones left half-written is gone.
    names = {".l2t.lock", NEWEST_NAME, PREVIOUS_NAME}
    assert set(ast.literal_eval(done.stdout)) <= names
