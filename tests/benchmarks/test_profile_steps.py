"""The profile of steps: operators fall into the right groups, and every part of a cell is there."""

import json

import pytest
import torch

from benchmarks.profile_steps import GROUPS, PartsClock, main


def groups_of(work):
    clock = PartsClock("cpu")
    try:
        work()
        clock.lap("part")
    finally:
        clock.close()
    return clock.parts["part"]


def test_operators_fall_into_their_groups():
    matrix = torch.ones(300, 300)
    products = groups_of(lambda: [matrix @ matrix for _ in range(20)])
    elementwise = groups_of(lambda: [matrix.sin() for _ in range(20)])
    moved = groups_of(lambda: [matrix.clone() for _ in range(20)])
    rest = "elementwise, reductions"
    for found, group in ((products, "matrix products"), (moved, "moving data"), (elementwise, rest)):
        inside = {name: found.get(name, 0.0) for name in (*GROUPS, rest)}
        assert max(inside, key=inside.get) == group
        assert found["operators"] >= 20


@pytest.mark.slow
def test_a_small_run(data_bin, tmp_path, capsys):
    path = tmp_path / "profile.jsonl"
    arguments = ["--sizes", "tiny", "--families", "transformer", "--updates", "1", "--max-tokens", "200"]
    arguments += ["--competitors", "ours-gradients"]
    assert main([*arguments, "--data", str(data_bin), "--json", str(path)]) == 0
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [line["competitor"] for line in lines] == ["ours-gradients"]
    assert [list(line["parts"]) for line in lines] == [["unroll", "reverse"]]
    assert all(part["operators"] > 100 for line in lines for part in line["parts"].values())
    shown = capsys.readouterr().out
    assert shown.count("%") == 2 * 4
    with pytest.raises(SystemExit):
        main([*arguments, "--updates", "0"])
