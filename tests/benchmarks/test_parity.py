"""The program of the parity table; the cells are tested in tests/plugin/test_parity.py."""

import json

import pytest

BOUND = 1e-5


@pytest.mark.parametrize(("difference", "code"), [(0.0, 0), (2 * BOUND, 1)])
def test_a_cell_over_the_bound_makes_the_program_fail(benchmark, tmp_path, difference, code):
    done = {"updates": 20, "difference": difference, "is_equal": difference == 0, "moved": 0.5, "clipped": 1.0}
    records = [
        {"family": "lstm", "optimizer": "nag", "loss": loss, **done, "epochs": 2, "good": difference < BOUND}
        for loss in ("cross_entropy", "dynamic")
    ]
    path = tmp_path / "parity.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    shown = benchmark("parity", "--families", "lstm", "--optimizers", "nag", "--json", path, expect=code).stdout
    assert shown.count("| lstm") == 2
    assert shown.count("BAD") == 2 * code
    assert len(path.read_text(encoding="utf-8").splitlines()) == 2
