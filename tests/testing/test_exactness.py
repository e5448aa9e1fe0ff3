"""A fast part of the exactness table, options that must be refused, and a control that must fail."""

import pytest

from fairseq_l2t.kernels.twice_differentiable import twice_differentiable
from fairseq_l2t.plugin import FairseqStudent
from fairseq_l2t.testing.exactness import (
    BOUND,
    BOUND_FLOAT32,
    COVERING_SETTINGS,
    QUICK_CELLS,
    Cell,
    all_cells,
    measure,
)
from fairseq_l2t.testing.refusals import REFUSALS, refusal
from fairseq_l2t.testing.tiny_students import FAMILIES, OPTIMIZERS


def test_the_quick_cells_hold_every_optimizer_and_setting():
    assert {cell.optimizer for cell in QUICK_CELLS} == set(OPTIMIZERS)
    assert {(cell.clipping, cell.update_freq, cell.schedule) for cell in QUICK_CELLS} == set(COVERING_SETTINGS)
    assert len(all_cells(FAMILIES, OPTIMIZERS, full=False)) == 3 * len(FAMILIES) * len(OPTIMIZERS)
    assert len(set(all_cells(FAMILIES, OPTIMIZERS, full=True))) == 12 * len(FAMILIES) * len(OPTIMIZERS)


@pytest.mark.slow
@pytest.mark.parametrize("cell", QUICK_CELLS, ids=lambda cell: f"{cell.family}-{cell.optimizer}")
def test_cells(data_bin, cell):
    measured = measure(data_bin, cell)
    print(measured)
    assert measured.differences < BOUND and measured.autograd < BOUND and measured.float32 < BOUND_FLOAT32
    assert measured.is_good
    assert measured.moved > 1e-3


def test_unscaled_fconv_is_another_student(data_bin):
    scaled, unscaled = (
        measure(data_bin, Cell(row, "sgd", *COVERING_SETTINGS[0])) for row in ("fconv", "fconv_unscaled")
    )
    assert abs(scaled.moved - unscaled.moved) > 1e-6


def test_a_wrong_hypergradient_is_not_good(data_bin, monkeypatch):
    # fconv's gradient scaling as fairseq has it: autograd and ours are wrong alike, differences are not.
    monkeypatch.setattr(FairseqStudent, "second_derivatives", lambda self: twice_differentiable())
    measured = measure(data_bin, Cell("fconv_iwslt", "nag", *COVERING_SETTINGS[0]))
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
        "adaptive softmax": "--adaptive-softmax-cutoff",
        "transformer_align": "TransformerAlignModel",
        "non-autoregressive": "NATransformerModel",
    }.get(name, name)
    assert key in message
