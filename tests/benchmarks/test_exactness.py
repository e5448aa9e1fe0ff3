"""The program of the exactness table: its exit code and its records; the cells are tested in tests/testing."""

import json

import pytest

CELLS = [("clipped", 2, "inverse_sqrt"), ("not clipped", 2, "cosine"), ("clipped", 1, "triangular")]
GOOD = {"differences": 1e-9, "resolution": 1e-9, "unresolved": 0, "autograd": 1e-15, "float32": 1e-6, "drift": 1e-6}


def write_records(path, *, is_good):
    names = ("clipping", "update_freq", "schedule")
    found = {**GOOD, "moved": 0.1, "good": is_good}
    records = [
        {"family": "fconv", "optimizer": "sgd", **dict(zip(names, cell, strict=True)), **found} for cell in CELLS
    ]
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def test_unknown_names_are_refused(benchmark):
    error = benchmark("exactness", "--families", "fconvv", expect=2).stderr
    assert "argument --families: invalid choice: 'fconvv' (choose from 'transformer'," in error


@pytest.mark.parametrize("is_good", [True, False])
def test_a_cell_over_its_bound_makes_the_program_fail(benchmark, tmp_path, is_good):
    # Cells of the file are not measured again; without refusals there is nothing left to do.
    write_records(tmp_path / "cells.jsonl", is_good=is_good)
    arguments = ["--families", "fconv", "--optimizers", "sgd", "--json", tmp_path / "cells.jsonl", "--no-refusals"]
    shown = benchmark("exactness", *arguments, expect=int(not is_good)).stdout
    assert "| fconv     | 1e-09 |" in shown
    assert ("FAILED: " in shown) != is_good
    assert "refused: " not in shown


@pytest.mark.parametrize("room", ["exactness", "cost"])
def test_programs_start_by_themselves(run_command, repository, room):
    """Not forked from a process that has imported anything."""
    shown = run_command(["python", "-m", f"benchmarks.{room}.run", "--help"], cwd=repository).stdout
    assert shown.startswith(f"usage: python -m benchmarks.{room}.run [-h]")
