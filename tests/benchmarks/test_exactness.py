"""A fast part of the exactness table, what must be refused, and that the table can fail."""

import json

import pytest

from benchmarks import exactness
from benchmarks.exactness_cells import BOUND, BOUND_FLOAT32, COVERING, Cell, all_cells, measure
from benchmarks.refusals import REFUSALS, refusal
from fairseq_l2t.kernels.twice_differentiable import twice_differentiable
from fairseq_l2t.plugin import FairseqStudent
from fairseq_l2t.testing.tiny_students import FAMILIES, OPTIMIZERS

CELLS = [
    Cell("transformer_attention_dropout", "adamw", *COVERING[0]),
    Cell("transformer_pre_norm", "momentum", *COVERING[1]),
    Cell("fconv_tied", "sgd", *COVERING[2]),
    Cell("fconv_unscaled", "sgd", *COVERING[0]),
    Cell("dynamicconv", "adagrad", *COVERING[0]),
    Cell("lightconv", "adam", *COVERING[1]),
    Cell("lstm_luong", "nag", *COVERING[2]),
]


def test_the_cells_here_hold_every_optimizer_and_setting():
    assert {cell.optimizer for cell in CELLS} == set(OPTIMIZERS)
    assert {(cell.clipping, cell.update_freq, cell.schedule) for cell in CELLS} == set(COVERING)
    assert len(all_cells(FAMILIES, OPTIMIZERS, full=False)) == 3 * len(FAMILIES) * len(OPTIMIZERS)
    assert len(set(all_cells(FAMILIES, OPTIMIZERS, full=True))) == 12 * len(FAMILIES) * len(OPTIMIZERS)


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS, ids=lambda cell: f"{cell.family}-{cell.optimizer}")
def test_cells(data_bin, cell):
    measured = measure(data_bin, cell)
    print(measured)
    assert measured.differences < BOUND and measured.autograd < BOUND and measured.float32 < BOUND_FLOAT32
    assert measured.is_good
    assert measured.moved > 1e-3


def test_unscaled_fconv_is_another_student(data_bin):
    scaled, unscaled = (measure(data_bin, Cell(row, "sgd", *COVERING[0])) for row in ("fconv", "fconv_unscaled"))
    assert abs(scaled.moved - unscaled.moved) > 1e-6


def test_a_wrong_hypergradient_is_not_good(data_bin, monkeypatch):
    # fconv's gradient scaling as fairseq has it: autograd and ours are wrong alike, differences are not.
    monkeypatch.setattr(FairseqStudent, "second_derivatives", lambda self: twice_differentiable())
    measured = measure(data_bin, Cell("fconv_iwslt", "nag", *COVERING[0]))
    assert measured.differences > 1e-2
    assert not measured.is_good


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals_name_what_is_refused(data_bin, name):
    message = refusal(data_bin, name)
    assert message is not None
    key = {
        "layer drop": "layerdrop",
        "quantisation noise": "quant-noise",
        "activation checkpointing": "activations",
        "adaptive softmax": "AdaptiveSoftmax",
        "transformer_align": "TransformerAlignModel",
        "non-autoregressive": "NATransformerModel",
    }.get(name, name)
    assert key in message


def test_the_command(tmp_path, capsys, monkeypatch):
    with pytest.raises(SystemExit) as ended:
        exactness.main(["--families", "fconvv"])
    assert ended.value.code == 2
    assert "--families: fconvv; expected names from" in capsys.readouterr().err
    # Cells that stand in the file are not measured again; one that is over its bound makes the command fail.
    cells = all_cells(["fconv"], ["sgd"], full=False)
    good = {"differences": 1e-9, "resolution": 1e-9, "unresolved": 0, "autograd": 1e-15, "float32": 1e-6, "drift": 1e-6}
    for is_good, expected in ((True, 0), (False, 1)):
        path = tmp_path / f"{is_good}.jsonl"
        records = [{**vars(cell), **good, "moved": 0.1, "good": is_good} for cell in cells]
        path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
        arguments = ["--families", "fconv", "--optimizers", "sgd", "--json", str(path), "--no-refusals"]
        assert exactness.main(arguments) == expected
        shown = capsys.readouterr().out
        assert "| fconv     | 1e-09 |" in shown
        assert ("FAILED: " in shown) != is_good
