"""The table of peers finds who is right, who raises and who is silently wrong."""

import importlib.util
import json

import pytest

TOLERANCE, STUDENT_TOLERANCE = 1e-6, 1e-4
NO_SECOND_DERIVATIVE = "scaled_dot_product_flash_attention_for_cpu_backward is not implemented"


@pytest.fixture
def measured(benchmark, data_bin, tmp_path):
    """``measured("fconv", "adam", "ours", ...)``: {family: cell} of some families, and the table that was printed."""

    def measure(families, optimizer, peer, *more):
        path = tmp_path / "cells.jsonl"
        options = ["--optimizers", optimizer, "--peers", peer, "--steps", "2", *more]
        folder = ["--folder", data_bin.parent.parent.parent, "--json", path]
        shown = benchmark("peers", "--families", *families, *options, *folder).stdout
        cells = map(json.loads, path.read_text(encoding="utf-8").splitlines())
        return {cell["family"]: cell for cell in cells}, shown

    return measure


def test_plain_autograd_raises_is_wrong_or_trains_another_student(measured):
    families = ("fconv_iwslt", "transformer", "transformer_tied", "transformer_pre_norm")
    cells, shown = measured(families, "sgd", "plain")

    fconv = cells["fconv_iwslt"]
    assert fconv["verdict"].startswith("WRONG ") and not fconv["verdict"].startswith("WRONG student")
    assert fconv["error"] > 0.01 > 1000 * fconv["resolution"]
    assert fconv["student_error"] < STUDENT_TOLERANCE

    # --share-all-embeddings: after the first call of functional_call the output projection is no longer tied.
    assert cells["transformer_pre_norm"]["verdict"].startswith("WRONG student")
    assert cells["transformer_pre_norm"]["error"] < TOLERANCE

    # The same message twice is one footnote.
    for family in ("transformer", "transformer_tied"):
        assert cells[family]["verdict"].startswith("raises: derivative for aten::")
        assert NO_SECOND_DERIVATIVE in cells[family]["message"]
    assert shown.splitlines() == [
        "| family | optimizer | plain |",
        "| --- | --- | --- |",
        f"| fconv_iwslt | sgd | {fconv['verdict']} |",
        "| transformer | sgd | raises [1] |",
        "| transformer_tied | sgd | raises [1] |",
        f"| transformer_pre_norm | sgd | {cells['transformer_pre_norm']['verdict']} |",
        "",
        f"[1] `{cells['transformer']['message']}`",
    ]


def test_plain_autograd_is_right_on_corrected_fconv(measured):
    cell = measured(["fconv_iwslt"], "sgd", "plain", "--mended")[0]["fconv_iwslt"]
    assert cell["verdict"] == "right"
    assert cell["error"] < TOLERANCE


def test_we_are_right_where_the_others_are_not(measured):
    cell = measured(["fconv_iwslt"], "adam", "ours")[0]["fconv_iwslt"]
    assert (cell["verdict"], cell["real_optimizer"]) == ("right", "fairseq")
    assert cell["student_error"] < 1e-12


@pytest.mark.slow
def test_textbook_adam_is_not_a_number(measured):
    """Words that do not occur have v = 0, where the root of v has no finite slope."""
    assert measured(["fconv"], "adam", "plain-textbook", "--mended")[0]["fconv"]["verdict"] == "NaN"


@pytest.mark.skipif(importlib.util.find_spec("higher") is not None, reason="higher is installed")
def test_a_peer_that_is_not_installed_is_a_column(measured):
    cells, shown = measured(["lstm"], "sgd", "higher")
    assert (cells["lstm"]["verdict"], cells["lstm"]["message"]) == ("not installed", "pip install 'higher>=0.2'")
    assert "| lstm | sgd | not installed [1] |" in shown


@pytest.mark.slow
def test_higher_cannot_patch_fconv(measured):
    pytest.importorskip("higher", reason="pip install 'higher>=0.2'")
    cell = measured(["fconv"], "sgd", "higher")[0]["fconv"]
    assert cell["message"].startswith("AttributeError: ") and "_parameters" in cell["message"]


@pytest.mark.slow
def test_torchopt_unties_tied_embeddings(measured):
    """From the second update on, its two copies of the embedding move apart."""
    pytest.importorskip("torchopt", reason="pip install 'torchopt>=0.7'")
    cell = measured(["transformer_tied"], "sgd", "torchopt-meta", "--mended")[0]["transformer_tied"]
    assert cell["verdict"].startswith("WRONG student")
    assert cell["student_error"] > 0.001
