"""The average of several checkpoints of a student, for decoding, as fairseq's ``scripts/average_checkpoints.py``.

That script is not part of an installed fairseq, and it loads checkpoints without ``weights_only``.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

# Its import allows the plain data in fairseq's checkpoints in torch.load.
from fairseq import checkpoint_utils  # noqa: F401
from torch import Tensor

from fairseq_l2t.plugin.student.initial_weights import UNREADABLE
from fairseq_l2t.storage import write_atomically

__all__ = ["AveragingError", "average_checkpoints", "last_checkpoints", "write_average"]

_EPOCH_CHECKPOINT = re.compile(r"checkpoint(\d+)\.pt")
_UPDATE_CHECKPOINT = re.compile(r"checkpoint_\d+_(\d+)\.pt")


class AveragingError(ValueError):
    """Checkpoints that cannot be averaged; the message names the files."""


def last_checkpoints(folder: str, count: int, *, by_updates: bool, upper_bound: int | None) -> list[str]:
    """Return the paths of the last checkpoints of a run, the newest first.

    Args:
        folder: ``--save-dir`` of ``fairseq-train``.
        count: number of checkpoints.
        by_updates: whether to use those of ``--save-interval-updates`` (checkpoint_3_2000.pt), or those of epochs
            (checkpoint3.pt).
        upper_bound: the last update or epoch to use; None: no limit.

    Raises:
        AveragingError: too few checkpoints.
        OSError: the folder cannot be read.
    """
    pattern = _UPDATE_CHECKPOINT if by_updates else _EPOCH_CHECKPOINT
    found = {int(match[1]): name for name in os.listdir(folder) if (match := pattern.fullmatch(name))}
    kept = sorted((number for number in found if upper_bound is None or number <= upper_bound), reverse=True)
    if len(kept) < count:
        form = "checkpoint_EPOCH_UPDATE.pt" if by_updates else "checkpointEPOCH.pt"
        limit = "" if upper_bound is None else f" up to {upper_bound}"
        raise AveragingError(f"{folder} has {len(kept)} files {form}{limit}; expected at least {count}")
    return [str(Path(folder, found[number])) for number in kept[:count]]


def average_checkpoints(paths: Sequence[str]) -> dict[str, Any]:
    """Return the checkpoint with the mean of all weights; everything else is that of the one with the most updates.

    Means are computed in float64. Weights of 16 bits become float32, whole numbers are rounded down, as by fairseq.

    Args:
        paths: checkpoints of one model, each once.

    Raises:
        AveragingError: a file that is no fairseq checkpoint, or checkpoints of different models.
    """
    sums: dict[str, Tensor] = {}
    newest: dict[str, Any] = {}
    for path in paths:
        state = _read(path)
        weights = state["model"]
        _require_same_weights(sums, weights, paths[0], path)
        for name, weight in weights.items():
            wide = weight.double() if weight.is_floating_point() else weight.long()
            sums[name] = sums[name] + wide if name in sums else wide
        if not newest or _updates(state) > _updates(newest):
            newest = state
    weights = newest["model"]
    return {**newest, "model": {name: _mean(total, len(paths), weights[name].dtype) for name, total in sums.items()}}


def write_average(paths: Sequence[str], output: str) -> None:
    """Write the average of some checkpoints to ``output``, completely or not at all.

    Raises:
        AveragingError: no path, a path that is given twice or is the output, or what `average_checkpoints` refuses.
        OSError: the file cannot be written.
    """
    real = [os.path.realpath(path) for path in paths]
    twice = [path for position, path in enumerate(paths) if real[position] in real[:position]]
    if twice:
        raise AveragingError(f"{twice[0]}: given twice; expected different checkpoints")
    if os.path.realpath(output) in real:
        raise AveragingError(f"{output}: is averaged itself; expected another path to write to")
    content = io.BytesIO()
    torch.save(average_checkpoints(paths), content)
    write_atomically(output, [content.getbuffer()])


def _read(path: str) -> dict[str, Any]:
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        first_line = str(error).split("\n")[0]
        raise AveragingError(f"{path}: not a fairseq checkpoint: {type(error).__name__}: {first_line}") from error
    weights = state.get("model") if isinstance(state, dict) else None
    if not isinstance(weights, dict) or not all(isinstance(weight, Tensor) for weight in weights.values()):
        raise AveragingError(f"{path}: contains no weights by name; expected a fairseq checkpoint")
    return state


def _require_same_weights(sums: dict[str, Tensor], weights: dict[str, Tensor], first: str, path: str) -> None:
    if not sums:
        return
    for name in [*sums, *weights]:
        if name not in weights or name not in sums:
            raise AveragingError(f"{name} is in one of {first} and {path} only; expected checkpoints of one model")
        if weights[name].shape != sums[name].shape:
            shapes = f"{tuple(sums[name].shape)} in {first} and {tuple(weights[name].shape)} in {path}"
            raise AveragingError(f"{name} has shape {shapes}; expected checkpoints of one model")


def _updates(state: dict[str, Any]) -> int:
    """Return the number of updates before a checkpoint; 0 for one without a history of its optimizer."""
    history = state.get("optimizer_history") or [{}]
    return int(history[-1].get("num_updates", 0))


def _mean(total: Tensor, count: int, dtype: torch.dtype) -> Tensor:
    if not total.is_floating_point():
        return (total // count).to(dtype)
    return (total / count).to(torch.promote_types(dtype, torch.float32))
