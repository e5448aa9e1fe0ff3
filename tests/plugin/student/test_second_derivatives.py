"""The blocks of the reverse pass on fairseq's own models: same dropout, same gradient, same second derivatives."""

import importlib
from contextlib import contextmanager, nullcontext

import fairseq.models.fconv
import pytest
import torch
from fairseq.models.lstm import LSTMDecoder
from torch.nn.attention import SDPBackend, sdpa_kernel

from fairseq_l2t.kernels import lstm_decoder as fused_decoder
from fairseq_l2t.kernels.twice_differentiable import (
    ScaledGradient,
    attribute_replaced,
    twice_differentiable,
    uses_fused_nodes,
)
from fairseq_l2t.plugin import token_loss
from fairseq_l2t.plugin.student.second_derivatives import fairseq_twice_differentiable
from fairseq_l2t.testing.tiny_students import FAMILIES, make_student
from fairseq_l2t.unroll.gradients import differentiable_gradient, graphs_of, pull_back_through, student_gradient

WEIGHT_NORM_MODULE = importlib.import_module("torch.nn.utils.weight_norm")


@contextmanager
def mended_only():
    """Second derivatives as PyTorch composes them, with only what is wrong in them mended."""

    def weight_norm(direction, magnitude, dim):
        return direction * (magnitude / torch.norm_except_dim(direction, 2, dim))

    def embedding(tokens, weight, padding_idx, *others, **named):
        scale = tokens.ne(padding_idx).unsqueeze(-1).to(weight)
        return ScaledGradient.apply(torch.embedding(weight, tokens), scale).clone()  # a view must not change in place

    with (
        sdpa_kernel(SDPBackend.MATH),
        attribute_replaced(torch.nn.functional, "embedding", embedding),
        attribute_replaced(WEIGHT_NORM_MODULE, "_weight_norm", weight_norm),
        attribute_replaced(fairseq.models.fconv, "GradMultiply", ScaledGradient),
        attribute_replaced(token_loss, "_is_softmax", lambda model: False),
    ):
        yield


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


class Update:
    """One update of a student that is far enough from its start for all of its parts to matter."""

    def __init__(self, data_bin, family: str, dtype: torch.dtype, *, cross_entropy: bool) -> None:
        self.student = make_student(data_bin, family).to_dtype(dtype)
        if family.startswith("lstm"):
            self.student.set_omega(4 * self.student.omega)
        self.batch = self.student.next_batch()
        generator = torch.Generator().manual_seed(2)
        drawn = torch.randn(len(self.student.omega) + self.student.coefficient_count, generator=generator)
        drawn = drawn.to(self.student.omega)
        self.direction = drawn[: len(self.student.omega)]
        self.phi = None if cross_entropy else 0.3 + 0.1 * drawn[len(self.student.omega) :]

    def plain_gradient(self, update: int = 7) -> torch.Tensor:
        return student_gradient(self.student, self.batch, self.phi, update)

    def derivatives(self, context=fairseq_twice_differentiable):
        """Return the gradient, ``J^T v`` and the cotangent of Phi in the forms that ``context`` switches on."""
        with attribute_replaced(self.student, "second_derivatives", context):
            graphs = list(graphs_of(self.student, self.batch, self.phi, 7))
            gradient = differentiable_gradient(self.student, graphs, self.batch)
            return gradient, *pull_back_through(self.student, graphs, self.direction, 0.01)


@pytest.mark.slow
@pytest.mark.parametrize("cross_entropy", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_against_what_pytorch_composes(data_bin, family, cross_entropy):
    for dtype, bound in ((torch.float64, 1e-13), (torch.float32, 2e-6)):
        update = Update(data_bin, family, dtype, cross_entropy=cross_entropy)
        gradient, pulled, phi_bar = update.derivatives()
        composed, composed_pulled, composed_phi_bar = update.derivatives(mended_only)
        assert error(gradient, update.plain_gradient()) < bound
        assert error(gradient, composed) < bound
        assert error(pulled, composed_pulled) < bound
        assert cross_entropy or error(phi_bar, composed_phi_bar) < bound
        # the control: the dropout of another update
        assert error(gradient, update.plain_gradient(8)) > 1e-2


@pytest.mark.parametrize("family", ["lstm", "lstm_no_attention", "lstm_wiseman"])
def test_the_decoder_is_one_node(data_bin, family):
    update, calls = Update(data_bin, family, torch.float32, cross_entropy=False), []
    node, stock = fused_decoder._decoder, LSTMDecoder.extract_features

    def counted(*arguments):
        calls.append(1)
        return node(*arguments)

    with attribute_replaced(fused_decoder, "_decoder", counted):
        update.plain_gradient()
        assert not calls  # the student's own updates are fairseq's, to the bit
        update.derivatives()
    assert len(calls) == len(update.batch)
    assert LSTMDecoder.extract_features is stock


@pytest.mark.parametrize("case", ["eval", "no gradient", "residuals", "incremental"])
def test_what_is_left_to_the_stock_decoder(data_bin, case):
    student = make_student(data_bin, "lstm_2_layers", "adam", "--dropout", "0")
    model, net_input = student.model.train(case != "eval"), student.next_batch()[0]["net_input"]
    model.decoder.residuals = case == "residuals"
    encoder_out = model.encoder(net_input["src_tokens"], net_input["src_lengths"])

    def decode():
        state = {} if case == "incremental" else None
        with torch.no_grad() if case == "no gradient" else nullcontext():
            return model.decoder(net_input["prev_output_tokens"], encoder_out, state)

    def refuse(*arguments, **options):
        raise AssertionError("the fused decoder was called")

    expected = decode()
    with fairseq_twice_differentiable(), attribute_replaced(fused_decoder, "_decoder", refuse):
        found = decode()
    assert torch.equal(found[0], expected[0])
    assert (found[1] is None) == (expected[1] is None) == (case != "eval")


def test_contexts_are_counted():
    assert not uses_fused_nodes()
    with twice_differentiable():
        with twice_differentiable():
            assert uses_fused_nodes()
        assert uses_fused_nodes()
    assert not uses_fused_nodes()
    with twice_differentiable(fused=False):
        assert not uses_fused_nodes()
