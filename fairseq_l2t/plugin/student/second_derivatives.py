"""Changes to fairseq's models: correct second derivatives, and no stale copies of weights in eval mode."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import fairseq.models.fconv
import torch
from fairseq.models.lstm import AttentionLayer, LSTMDecoder
from fairseq.modules import FairseqDropout
from torch import Tensor, nn
from torch.nn import functional as F

from fairseq_l2t.kernels.lstm_decoder import fused_decoder
from fairseq_l2t.kernels.twice_differentiable import (
    NotTwiceDifferentiableError,
    ScaledGradient,
    attribute_replaced,
    refuse_unverified,
    twice_differentiable,
    unverified_modules,
)
from fairseq_l2t.plugin.student_options import OptionError

__all__ = [
    "drop_fast_path",
    "fairseq_twice_differentiable",
    "refuse_unused_trust",
    "refuse_unverified_fairseq",
    "unverified_fairseq_modules",
]

_STOCK_LSTM_FEATURES = LSTMDecoder.extract_features
_FUSED_DTYPES = (torch.float32, torch.float64)

_FAST_PATH_COPIES = tuple(
    f"{part}_{kind}" for part in ("in_proj", "out_proj", "fc1", "fc2") for kind in ("weight", "bias")
)

VERIFIED_FAIRSEQ_MODULES: frozenset[str] = frozenset(
    f"fairseq.{name}"
    for name in (  # noqa: SIM905  one name a word reads better
        # lstm
        "models.lstm.LSTMModel models.lstm.LSTMEncoder models.lstm.LSTMDecoder models.lstm.AttentionLayer "
        # fconv
        "models.fconv.FConvModel models.fconv.FConvEncoder models.fconv.FConvDecoder models.fconv.AttentionLayer "
        "modules.conv_tbc.ConvTBC modules.linearized_convolution.LinearizedConvolution modules.beamable_mm.BeamableMM "
        # transformer
        "models.transformer.transformer_legacy.TransformerModel "
        "models.transformer.transformer_legacy.TransformerEncoder "
        "models.transformer.transformer_legacy.TransformerDecoder "
        "models.transformer.transformer_base.TransformerModelBase "
        "models.transformer.transformer_encoder.TransformerEncoderBase "
        "models.transformer.transformer_decoder.TransformerDecoderBase "
        "modules.transformer_layer.TransformerEncoderLayer modules.transformer_layer.TransformerDecoderLayer "
        "modules.transformer_layer.TransformerEncoderLayerBase modules.transformer_layer.TransformerDecoderLayerBase "
        "modules.multihead_attention.MultiheadAttention modules.fairseq_dropout.FairseqDropout "
        "modules.learned_positional_embedding.LearnedPositionalEmbedding "
        "modules.sinusoidal_positional_embedding.SinusoidalPositionalEmbedding "
        # lightconv, dynamicconv
        "models.lightconv.LightConvModel models.lightconv.LightConvEncoder models.lightconv.LightConvDecoder "
        "models.lightconv.LightConvEncoderLayer models.lightconv.LightConvDecoderLayer "
        "modules.lightweight_convolution.LightweightConv1dTBC modules.dynamic_convolution.DynamicConv1dTBC"
    ).split()
)
"""fairseq classes whose updates are tested against float64 finite differences (tests/checks, benchmarks)."""


@contextmanager
def fairseq_twice_differentiable(*, fused: bool = True) -> Iterator[None]:
    """Switch PyTorch's and fairseq's blocks to forms with correct second derivatives (`twice_differentiable`).

    fconv's encoder scales its gradient by a node that is correct under double backward. The loop of the LSTM's decoder
    becomes one node.

    Args:
        fused: whether to use the hand-written nodes; see `twice_differentiable`.
    """
    with (
        twice_differentiable(fused=fused),
        attribute_replaced(fairseq.models.fconv, "GradMultiply", ScaledGradient),
        attribute_replaced(LSTMDecoder, "extract_features", _lstm_features if fused else _STOCK_LSTM_FEATURES),
    ):
        yield


def refuse_unverified_fairseq(model: nn.Module, trusted: Collection[str] = ()) -> None:
    """Refuse a model with modules whose second derivatives are not verified.

    Args:
        model: the student's model.
        trusted: full names of classes accepted by the user (``--trust-module``).

    Raises:
        NotTwiceDifferentiableError: names every such module.
    """
    try:
        refuse_unverified(model, VERIFIED_FAIRSEQ_MODULES | set(trusted))
    except NotTwiceDifferentiableError as error:
        raise NotTwiceDifferentiableError(f"{error}; l2t-doctor measures them, --trust-module accepts them") from None


def refuse_unused_trust(model: nn.Module, trusted: Collection[str]) -> None:
    """Raise OptionError for a ``--trust-module`` that names no unverified class of ``model``."""
    unused = set(trusted) - {name for _, name in unverified_fairseq_modules(model)}
    if unused:
        names = ", ".join(sorted(unused))
        raise OptionError(f"--trust-module: {names}; the student has no such module, or its class is verified already")


def unverified_fairseq_modules(model: nn.Module) -> list[tuple[str, str]]:
    """Return (path, full class name) of every part of ``model`` whose second derivatives are not verified."""
    return unverified_modules(model, VERIFIED_FAIRSEQ_MODULES)


def drop_fast_path(model: nn.Module) -> None:
    """Remove the fused inference path and its weight copies from fairseq 0.12's Transformer encoder layers.

    The copies get no gradient and increase the size of every saved step. In eval mode they are used *instead of* the
    layer's weights until a forward pass in train mode has run, so that dev measures would use old weights.
    """
    for module in model.modules():
        if hasattr(module, "can_use_fastpath"):
            setattr(module, "can_use_fastpath", False)  # noqa: B010  nn.Module declares no such attribute
            for name in _FAST_PATH_COPIES:
                if name in module._parameters:
                    delattr(module, name)


def _lstm_features(
    decoder: LSTMDecoder,
    prev_output_tokens: Tensor,
    encoder_out: tuple[Tensor, Tensor, Tensor, Tensor] | None = None,
    incremental_state: dict[str, dict[str, Tensor | None]] | None = None,
) -> Any:
    """Replace ``LSTMDecoder.extract_features`` where derivatives are recorded in training; return what it returns.

    Dropout draws the same numbers: by the same calls, in the same order, on tensors of the same shape.
    """
    if encoder_out is None or incremental_state is not None or not _is_plain(decoder, encoder_out[0]):
        return _STOCK_LSTM_FEATURES(decoder, prev_output_tokens, encoder_out, incremental_state)
    encoder_outs, hiddens, cells, padding = encoder_out
    words = decoder.dropout_in_module(decoder.embed_tokens(prev_output_tokens)).transpose(0, 1)
    length, batch, width = words.shape
    if decoder.encoder_hidden_proj is not None:
        hiddens, cells = decoder.encoder_hidden_proj(hiddens), decoder.encoder_cell_proj(cells)
    first, *others = decoder.layers
    biases = [layer.bias_ih + layer.bias_hh for layer in decoder.layers]
    weights = [torch.cat((first.weight_ih[:, width:], first.weight_hh), 1)]
    weights += [torch.cat((layer.weight_ih, layer.weight_hh), 1) for layer in others]
    masks = None
    if decoder.dropout_out_module.p > 0:
        ones = words.new_ones(batch, decoder.hidden_size)
        masks = [[decoder.dropout_out_module(ones) for _ in range(len(weights) + 1)] for _ in range(length)]
    outputs = fused_decoder(
        F.linear(words, first.weight_ih[:, :width], biases[0]),
        hiddens,
        cells,
        None if decoder.attention is None else _attention_inputs(decoder.attention, encoder_outs),
        weights,
        biases[1:],
        score_bias=torch.zeros_like(padding, dtype=words.dtype).masked_fill_(padding, -torch.inf).t(),
        masks=masks,
    ).transpose(0, 1)
    if hasattr(decoder, "additional_fc"):
        outputs = decoder.dropout_out_module(decoder.additional_fc(outputs))
    return outputs, None


def _is_plain(decoder: LSTMDecoder, encoder_outs: Tensor) -> bool:
    """Return whether fairseq built ``decoder`` for translation, without extras, and derivatives are recorded."""
    return (
        decoder.training
        and torch.is_grad_enabled()
        and encoder_outs.dtype in _FUSED_DTYPES
        and not decoder.residuals
        and decoder.adaptive_softmax is None
        and type(decoder.dropout_out_module) is FairseqDropout
        and all(type(layer) is nn.LSTMCell and layer.bias for layer in decoder.layers)
        and (decoder.attention is None or type(decoder.attention) is AttentionLayer)
    )


def _attention_inputs(attention: AttentionLayer, encoder_outs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return K, V and W of `kernels.attention` for encoder outputs (source, batch, units).

    ``out(V' a, h) = (out_1 V') a + out_2 h``, and ``V' (in h) = (V' in) h``.
    """
    units = encoder_outs.shape[2]
    by_sentence = encoder_outs.transpose(0, 1).contiguous()
    values = F.linear(by_sentence, attention.output_proj.weight[:, :units])
    return by_sentence @ attention.input_proj.weight, values, attention.output_proj.weight[:, units:]
