"""The table of peers finds who is right, who raises and who is silently wrong."""

import json

import pytest

from benchmarks import peers
from benchmarks.peer_cells import STUDENT_TOLERANCE, TOLERANCE, Cell, measure_cell
from benchmarks.peers import main, run_cell, table

NO_SECOND_DERIVATIVE = "scaled_dot_product_flash_attention_for_cpu_backward is not implemented"


def test_plain_autograd_is_silently_wrong_on_fconv(data_bin):
    cell = measure_cell(data_bin, "fconv_iwslt", "sgd", "plain", steps=2)
    assert cell.verdict.startswith("WRONG")
    assert cell.error > 0.01 > 1000 * cell.resolution
    assert cell.student_error < STUDENT_TOLERANCE


def test_plain_autograd_is_right_on_mended_fconv(data_bin):
    cell = measure_cell(data_bin, "fconv_iwslt", "sgd", "plain", steps=2, mended=True)
    assert cell.verdict == "right"
    assert cell.error < TOLERANCE


def test_we_are_right_where_the_others_are_not(data_bin):
    cell = measure_cell(data_bin, "fconv_iwslt", "adam", "ours", steps=2)
    assert (cell.verdict, cell.real_optimizer) == ("right", "fairseq")
    assert cell.student_error < 1e-12


def test_plain_autograd_raises_on_flash_attention(data_bin):
    with pytest.raises(RuntimeError, match=NO_SECOND_DERIVATIVE):
        measure_cell(data_bin, "transformer", "sgd", "plain", steps=2)


@pytest.mark.slow
def test_functional_call_trains_another_student_where_a_module_has_two_names(data_bin):
    """--share-all-embeddings: after the first call the output projection is no longer tied."""
    cell = measure_cell(data_bin, "transformer_pre_norm", "sgd", "plain", steps=2)
    assert cell.verdict.startswith("WRONG student")
    assert cell.error < TOLERANCE


@pytest.mark.slow
def test_textbook_adam_is_not_a_number(data_bin):
    """Words that do not occur have v = 0, where the root of v has no finite slope."""
    assert measure_cell(data_bin, "fconv", "adam", "plain-textbook", steps=2, mended=True).verdict == "NaN"


def test_cells_have_processes_of_their_own(data_bin, tmp_path, capsys):
    wanted = ["--families", "transformer", "--optimizers", "sgd", "--peers", "plain", "--steps", "1", "--folder"]
    main([*wanted, str(data_bin.parent.parent.parent), "--json", str(tmp_path / "cells.jsonl")])
    (line,) = (tmp_path / "cells.jsonl").read_text().splitlines()
    cell = json.loads(line)
    assert cell["verdict"].startswith("raises: derivative for aten::")
    assert NO_SECOND_DERIVATIVE in cell["message"]
    assert "| transformer | sgd | raises [1] |" in capsys.readouterr().out


def test_a_peer_that_is_not_installed_is_a_column(data_bin, monkeypatch):
    monkeypatch.setattr(peers.util, "find_spec", lambda name: None)
    cell = run_cell(data_bin, "lstm", "sgd", "higher", steps=3, mended=False, timeout=60)
    assert (cell.verdict, cell.message) == ("not installed", "pip install 'higher>=0.2'")


def test_table_shares_footnotes():
    cells = [
        Cell("lstm", "sgd", "plain", False, "right"),
        Cell("lstm", "sgd", "higher", False, "raises: no", message="TypeError: no"),
        Cell("fconv", "sgd", "plain", False, "WRONG 30 %"),
        Cell("fconv", "sgd", "higher", False, "raises: no", message="TypeError: no"),
    ]
    assert table(cells).splitlines() == [
        "| family | optimizer | plain | higher |",
        "| --- | --- | --- | --- |",
        "| lstm | sgd | right | raises [1] |",
        "| fconv | sgd | WRONG 30 % | raises [1] |",
        "",
        "[1] `TypeError: no`",
    ]


@pytest.mark.slow
def test_higher_cannot_patch_fconv(data_bin):
    pytest.importorskip("higher", reason="pip install 'higher>=0.2'")
    with pytest.raises(AttributeError, match="_parameters"):
        measure_cell(data_bin, "fconv", "sgd", "higher", steps=2)


@pytest.mark.slow
def test_torchopt_unties_tied_embeddings(data_bin):
    """From the second update on, its two copies of the embedding move apart."""
    pytest.importorskip("torchopt", reason="pip install 'torchopt>=0.7'")
    cell = measure_cell(data_bin, "transformer_tied", "sgd", "torchopt-meta", mended=True, steps=2)
    assert cell.verdict.startswith("WRONG student")
    assert cell.student_error > 0.001
