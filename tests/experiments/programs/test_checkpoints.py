"""Checkpoints that a disk or a kill has cut are set aside before fairseq-train reads them."""

import pytest
import torch

from experiments.programs.checkpoints import is_whole, mend_last_checkpoint


def save(path, update):
    torch.save({"update": update, "model": torch.arange(1000.0)}, path)
    return path


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [cut, flip, lambda path: path.write_bytes(b"")])
def test_damage_is_seen(tmp_path, damage):
    path = save(tmp_path / "checkpoint.pt", 1)
    assert is_whole(path)
    damage(path)
    assert not is_whole(path)


def test_the_newest_whole_one_takes_the_place_of_a_cut_last(tmp_path, capsys):
    for name, update in (("1_20", 20), ("2_100", 100), ("3_300", 300), ("best", 400), ("last", 300)):
        save(tmp_path / f"checkpoint_{name}.pt", update)
    mend_last_checkpoint(tmp_path)
    last = tmp_path / "checkpoint_last.pt"
    assert torch.load(last)["update"] == 300 and not capsys.readouterr().out  # nothing to mend
    for name in ("last", "3_300"):
        cut(tmp_path / f"checkpoint_{name}.pt")
    damaged = last.read_bytes()
    mend_last_checkpoint(tmp_path)
    assert torch.load(last)["update"] == 100
    assert (tmp_path / "checkpoint_last.damaged").read_bytes() == damaged
    assert f"{last}: damaged, now checkpoint_last.damaged; goes on from checkpoint_2_100.pt" in capsys.readouterr().out


def test_without_a_whole_one_it_begins_anew(tmp_path, capsys):
    cut(save(tmp_path / "checkpoint_last.pt", 1))
    mend_last_checkpoint(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint_last.damaged"]
    assert "goes on from the beginning" in capsys.readouterr().out
    mend_last_checkpoint(tmp_path)
    assert not capsys.readouterr().out
