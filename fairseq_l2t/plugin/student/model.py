"""Building a student's model as fairseq does, and finding its parameters with a gradient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from fairseq import utils
from fairseq.data import data_utils
from fairseq.models import FairseqEncoderDecoderModel
from fairseq.tasks.translation import TranslationTask
from torch import Tensor, nn

from fairseq_l2t.plugin.student.initial_weights import load_weights
from fairseq_l2t.plugin.student.second_derivatives import (
    drop_fast_path,
    refuse_unused_trust,
    refuse_unverified_fairseq,
)
from fairseq_l2t.plugin.student_options import OptionError, StudentOptions
from fairseq_l2t.teaching.options.declaration import as_given, flag_of

__all__ = ["build_model", "reached_names"]

_REFUSALS = (AssertionError, ValueError, TypeError, NameError, AttributeError, LookupError, ArithmeticError)
"""How fairseq's models refuse sizes and lists of layers: most fail in the middle of their constructors."""

_OF_MODELS = ("encoder_", "decoder_", "share_", "adaptive_", "no_token", "dropout")
"""Beginnings of the names of options that models take, for messages."""


def build_model(
    task: TranslationTask,
    options: StudentOptions,
    seed: int,
    *,
    weights: Mapping[str, Tensor] | None,
    refuse_modules: bool,
) -> FairseqEncoderDecoderModel:
    """Return the initial model of ``fairseq-train --seed``, without the fast path of its encoder layers.

    Args:
        task: the translation task.
        options: ``cfg.model`` gives the architecture.
        seed: seed of the initial weights. The caller's random state is not changed.
        weights: initial weights by name (``--student-init``); None: drawn by fairseq.
        refuse_modules: whether to refuse modules whose second derivatives are not verified.

    Raises:
        OptionError: sizes that the architecture refuses, weights of another one, or an unused ``--trust-module``.
        NotTwiceDifferentiableError: modules whose second derivatives are not verified, by name.
    """
    given = options.namespace
    with torch.random.fork_rng([]), data_utils.numpy_seed(seed):
        utils.set_torch_seed(seed)
        try:
            model = task.build_model(options.cfg.model)
        except _REFUSALS as error:
            sizes = [name for name in options.of_fairseq if name.startswith(_OF_MODELS)]
            shown = " ".join(f"{flag_of(name)} {as_given(options.of_fairseq[name])}" for name in sizes)
            reason = " ".join(str(error).split()) or "refused"
            kind = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
            raise OptionError(f"--arch: {given.arch} with {shown or 'these sizes'}: {kind}{reason}") from error
    refuse_unused_trust(model, given.trust_module)
    if refuse_modules:
        refuse_unverified_fairseq(model, given.trust_module)
    if weights is not None:
        load_weights(model, weights, given.student_init)
    drop_fast_path(model)
    return model


def reached_names(
    model: FairseqEncoderDecoderModel, named: Sequence[tuple[str, nn.Parameter]], sample: dict[str, Any], arch: str
) -> frozenset[str]:
    """Return the names of the parameters that the output for ``sample`` depends on.

    Args:
        model: a fairseq encoder-decoder.
        named: its parameters with their names.
        sample: a training batch on the device of the model.
        arch: name of the architecture, for the message.

    Raises:
        OptionError: a model that needs more inputs than source and previous target, whose forward pass fails, or whose
            output depends on no trained parameter.
    """
    device = sample["net_input"]["src_tokens"].device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        model.train()
        try:
            output = model(**sample["net_input"])
        except TypeError as error:  # its forward method has further arguments
            raise OptionError(f"--arch: {arch}; expected a plain translation model: {error}") from error
        except ArithmeticError as error:  # fconv without attention divides by the number of its attention layers
            raise OptionError(f"--arch: {arch}; its forward pass fails with these options: {error}") from error
        total = model.get_normalized_probs(output, log_probs=True).sum()
        parameters = [parameter for _, parameter in named] if total.requires_grad else []
        gradients = torch.autograd.grad(total, parameters, allow_unused=True) if parameters else ()
    reached = frozenset(name for (name, _), found in zip(named, gradients, strict=False) if found is not None)
    if not reached:
        raise OptionError(f"--arch: {arch}; expected a model whose output depends on a trained parameter")
    return reached
