"""The initial weights of every student (``--student-init``)."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from fairseq import checkpoint_utils
from torch import Tensor, nn

from fairseq_l2t.plugin.student_options import OptionError

__all__ = ["UNREADABLE", "load_weights", "read_weights"]

UNREADABLE = (
    OSError,
    EOFError,
    pickle.UnpicklingError,
    RuntimeError,
    LookupError,
    TypeError,
    AttributeError,
    ValueError,
)
"""Errors that torch.load and fairseq's upgrade of old checkpoints raise for a file that is not a checkpoint."""

_LONGEST_REASON = 400
"""Characters shown of PyTorch's list of weights that do not fit; enough for the first few names."""


def read_weights(path: str | None) -> dict[str, Tensor] | None:
    """Return the weights of a fairseq checkpoint by name; None for no path.

    Raises:
        OptionError: not a file, or not a checkpoint that torch.load reads with ``weights_only=True``.
    """
    if path is None:
        return None
    if not Path(path).is_file():
        raise OptionError(f"--student-init: {path} is not a file; expected a fairseq checkpoint")
    try:
        # compat.explicit_weights_only makes fairseq pass weights_only=True: nothing in the file is executed.
        weights = checkpoint_utils.load_checkpoint_to_cpu(path)["model"]
    except UNREADABLE as error:
        reason = f"{type(error).__name__}: {error}".split("\n")[0]
        if isinstance(error, pickle.UnpicklingError):  # PyTorch's message advises to load it all the same
            reason = "it is damaged, or has other objects than tensors and plain values; nothing in it was executed"
        raise OptionError(f"--student-init: {path} cannot be read as a fairseq checkpoint: {reason}") from error
    if not isinstance(weights, Mapping) or not all(isinstance(part, Tensor) for part in weights.values()):
        raise OptionError(f"--student-init: {path} contains no weights by name; expected a fairseq checkpoint")
    return dict(weights)


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], path: str) -> None:
    """Write ``weights`` into ``model``.

    Raises:
        OptionError: the weights are those of another architecture, or differ where the model has one matrix under
            several names; the message names ``path``.
    """
    try:
        model.load_state_dict(weights, strict=True)
    except (RuntimeError, KeyError) as error:  # KeyError: fairseq's attention looks for the parts of a layer
        what = "no " if isinstance(error, KeyError) else ""
        what += " ".join(str(error).split())[:_LONGEST_REASON]
        raise OptionError(f"--student-init: {path} does not fit --arch: {what}") from error
    _refuse_untied(model, weights, path)


def _refuse_untied(model: nn.Module, weights: Mapping[str, Tensor], path: str) -> None:
    """Refuse different values for one parameter: ``load_state_dict`` keeps those of its last name."""
    names_of: dict[nn.Parameter, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names_of.setdefault(parameter, []).append(name)
    for names in names_of.values():
        found = [name for name in names if name in weights]
        for other in found[1:]:
            if not torch.equal(weights[found[0]], weights[other]):
                raise OptionError(
                    f"--student-init: {path} has different values of {found[0]} and {other}, which are one matrix in "
                    "this student; expected equal values, or a student without shared embeddings"
                )
