"""What of fairseq must be changed for second derivatives, and for weights that move under a model in eval mode."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager

import fairseq.models.fconv
from torch import nn

from fairseq_l2t.core.twice_differentiable import (
    NotTwiceDifferentiableError,
    ScaledGradient,
    attribute_replaced,
    refuse_unvouched,
    twice_differentiable,
    unvouched_modules,
)
from fairseq_l2t.plugin.config import OptionError

__all__ = [
    "drop_fast_path",
    "fairseq_twice_differentiable",
    "refuse_unused_trust",
    "refuse_unvouched_fairseq",
    "unvouched_fairseq_modules",
]

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
def fairseq_twice_differentiable() -> Iterator[None]:
    """`twice_differentiable`, and fconv's encoder gradient scaling by a node that is right under double backward."""
    with twice_differentiable(), attribute_replaced(fairseq.models.fconv, "GradMultiply", ScaledGradient):
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
