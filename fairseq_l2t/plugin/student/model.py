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
    refuse_unvouched_fairseq,
)
from fairseq_l2t.plugin.student_options import OptionError, StudentOptions

__all__ = ["build_model", "reached_names"]


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
        except AssertionError as error:  # how fairseq's modules refuse sizes
            raise OptionError(f"--arch: {given.arch} with these sizes: {error}") from error
    refuse_unused_trust(model, given.trust_module)
    if refuse_modules:
        refuse_unvouched_fairseq(model, given.trust_module)
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
        OptionError: a model that needs more inputs than source and previous target, or whose output depends on no
            trained parameter.
    """
    device = sample["net_input"]["src_tokens"].device
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        model.train()
        try:
            output = model(**sample["net_input"])
        except TypeError as error:  # its forward method has further arguments
            raise OptionError(f"--arch: {arch}; expected a plain translation model: {error}") from error
        total = model.get_normalized_probs(output, log_probs=True).sum()
        parameters = [parameter for _, parameter in named] if total.requires_grad else []
        gradients = torch.autograd.grad(total, parameters, allow_unused=True) if parameters else ()
    reached = frozenset(name for (name, _), found in zip(named, gradients, strict=False) if found is not None)
    if not reached:
        raise OptionError(f"--arch: {arch}; expected a model whose output depends on a trained parameter")
    return reached
