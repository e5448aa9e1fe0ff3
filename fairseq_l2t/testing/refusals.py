"""Options of a student that must be refused by name before training: nobody can differentiate through them exactly."""

from __future__ import annotations

from pathlib import Path

from fairseq_l2t.kernels.twice_differentiable import NotTwiceDifferentiableError
from fairseq_l2t.plugin import FairseqStudent
from fairseq_l2t.plugin.student_options import OptionError
from fairseq_l2t.testing.tiny_students import BATCHES, FAMILIES, LIFE

__all__ = ["REFUSALS", "refusal"]

_SMALL = FAMILIES["transformer"][2:]

REFUSALS: dict[str, tuple[str, ...]] = {
    "adadelta": ("--optimizer", "adadelta"),
    "adamax": ("--optimizer", "adamax"),
    "adafactor": ("--optimizer", "adafactor"),
    "fp16": ("--fp16",),
    "reduce_lr_on_plateau": ("--lr-scheduler", "reduce_lr_on_plateau"),
    "layer drop": ("--encoder-layerdrop", "0.1"),
    "quantisation noise": ("--quant-noise-pq", "0.1"),
    "activation checkpointing": ("--checkpoint-activations",),
    "adaptive softmax": ("--adaptive-softmax-cutoff", "50,100"),
    "transformer_align": ("--arch", "transformer_align", *_SMALL),
    "non-autoregressive": ("--arch", "nonautoregressive_transformer", *_SMALL),
}
"""Options to add to a Transformer's, by name of the refused part."""


def refusal(data: Path, name: str) -> str | None:
    """Return the error `FairseqStudent` raises for ``REFUSALS[name]``, or None if it raises none."""
    arguments = [str(data), *FAMILIES["transformer"], "--optimizer", "adam", "--lr", "0.01", *BATCHES, *LIFE]
    try:
        FairseqStudent.from_args([*arguments, *REFUSALS[name]])
    except (OptionError, NotTwiceDifferentiableError) as error:
        return str(error)
    return None
