"""What of fairseq must be changed for second derivatives, and for weights that move under a model in eval mode."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager

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
    refuse_unvouched,
    twice_differentiable,
    unvouched_modules,
)
from fairseq_l2t.plugin.student_options import OptionError

__all__ = [
    "drop_fast_path",
    "fairseq_twice_differentiable",
    "refuse_unused_trust",
    "refuse_unvouched_fairseq",
    "unvouched_fairseq_modules",
]

_STOCK_LSTM_FEATURES = LSTMDecoder.extract_features
_FUSED_DTYPES = (torch.float32, torch.float64)

_FAST_PATH_COPIES = tuple(
    f"{part}_{kind}" for part in ("in_proj", "out_proj", "fc1", "fc2") for kind in ("weight", "bias")
)

VOUCHED_FAIRSEQ_MODULES: frozenset[str] = frozenset(
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
"""fairseq classes whose updates are tested here against float64 finite differences (benchmarks/exactness.py)."""


@contextmanager
def fairseq_twice_differentiable(*, fused: bool = True) -> Iterator[None]:
    """`twice_differentiable`, and for fairseq's own blocks what is right under double backward, and cheap.

    fconv's encoder scales its gradient by a node that is right; the loop of the LSTM's decoder is one node (``fused``:
    see `twice_differentiable`).
    """
    with (
        twice_differentiable(fused=fused),
        attribute_replaced(fairseq.models.fconv, "GradMultiply", ScaledGradient),
        attribute_replaced(LSTMDecoder, "extract_features", _lstm_features if fused else _STOCK_LSTM_FEATURES),
    ):
        yield


def refuse_unvouched_fairseq(model: nn.Module, trusted: Collection[str] = ()) -> None:
    """Refuse a model with modules nobody has vouched for.

    Args:
        model: the student's model.
        trusted: full class names the user answers for (``--trust-module``).

    Raises:
        NotTwiceDifferentiableError: names every such module.
    """
    try:
        refuse_unvouched(model, VOUCHED_FAIRSEQ_MODULES | set(trusted))
    except NotTwiceDifferentiableError as error:
        raise NotTwiceDifferentiableError(f"{error}; l2t-doctor measures them, --trust-module takes them") from None


def refuse_unused_trust(model: nn.Module, trusted: Collection[str]) -> None:
    """Raise OptionError for a ``--trust-module`` that names no unvouched class of ``model``."""
    unused = set(trusted) - {name for _, name in unvouched_fairseq_modules(model)}
    if unused:
        names = ", ".join(sorted(unused))
        raise OptionError(f"--trust-module: {names}; the student has no such module, or it is known here already")


def unvouched_fairseq_modules(model: nn.Module) -> list[tuple[str, str]]:
    """Return (path, full class name) of every part of ``model`` nobody here has vouched for."""
    return unvouched_modules(model, VOUCHED_FAIRSEQ_MODULES)


def drop_fast_path(model: nn.Module) -> None:
    """Take the fused inference path and its weight copies out of fairseq 0.12's Transformer encoder layers.

    The copies get no gradient, inflate every kept step, and in eval mode they are used *instead of* the layer's
    weights until a forward in train mode has run: dev measures would not see the student move.
    """
    for module in model.modules():
        if hasattr(module, "can_use_fastpath"):
            module.can_use_fastpath = False
            for name in _FAST_PATH_COPIES:
                if name in module._parameters:
                    delattr(module, name)


def _lstm_features(decoder: LSTMDecoder, prev_output_tokens: Tensor, encoder_out=None, incremental_state=None):
    """Stand in for ``LSTMDecoder.extract_features``, where its derivatives are recorded in training.

    The same dropout is drawn: by the same calls, in the same order, on tensors of the same shape.
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
    """Return whether ``decoder`` is what fairseq builds for translation, and its derivatives are recorded."""
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
