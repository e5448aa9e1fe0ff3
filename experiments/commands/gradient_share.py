"""Measures the share of the gradient that goes to tokens of misaligned pairs, at every checkpoint of a training.

    python -m experiments gradient-share out/x/data/bin --checkpoints CE=DIR TEACHER=DIR \\
        --json shares.jsonl --plot shares.png

``train.noise.txt`` beside DATA_BIN names the misaligned pairs. For each checkpoint, pairs are drawn from the training
set; the loss is that of its own criterion, with the coefficients its teacher gives it at that update; measured is the
norm of the gradient at the logits of each token, without dropout. A share equal to that of the tokens means that the
loss tells nothing apart; 0 is a perfect filter.
"""

from __future__ import annotations

import argparse
import json
import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from random import Random
from typing import Any

import torch
from fairseq import checkpoint_utils, tasks
from tqdm import tqdm

from experiments.report.plots import draw_shares
from fairseq_l2t.pairs.parallel_text import BadInput, read_lines, write_lines
from fairseq_l2t.pairs.prepare import reference_file
from fairseq_l2t.plugin import L2TTask  # registers it and the criterion

__all__ = ["add_options", "checkpoints_of", "run", "share_of_noise"]

_NAME = re.compile(r"checkpoint_\d+_(\d+)\.pt")


def checkpoints_of(folder: Path) -> list[tuple[int, Path]]:
    """Return (updates, path) of what ``fairseq-train --save-interval-updates`` has kept, in order.

    Raises:
        BadInput: there is none.
    """
    found = [(int(match[1]), path) for path in folder.glob("*.pt") if (match := _NAME.fullmatch(path.name))]
    if not found:
        raise BadInput(f"--checkpoints: {folder}; expected checkpoint_EPOCH_UPDATES.pt in it")
    return sorted(found)


def share_of_noise(
    path: Path, update: int, data: Path, pairs: Sequence[int], noisy: frozenset[int]
) -> dict[str, float]:
    """Return the share of the gradient, and of the tokens, that are of noisy pairs.

    Args:
        path: a checkpoint.
        update: number of updates it has made.
        data: DATA_BIN.
        pairs: numbers of training pairs, from 0.
        noisy: which of them are misaligned.
    """
    task, model, criterion = _loaded(path, data, update)
    dataset = task.dataset("train")
    gradient, tokens = {True: 0.0, False: 0.0}, {True: 0, False: 0}
    for kind in (True, False):
        numbers = [number for number in pairs if (number in noisy) == kind]
        for start in range(0, len(numbers), 32):
            sample = dataset.collater([dataset[number] for number in numbers[start : start + 32]])
            gradient[kind] += _norms_at_the_logits(model, criterion, sample)
            tokens[kind] += sample["ntokens"]
    return {
        "update": update,
        "share": gradient[True] / sum(gradient.values()),
        "tokens": tokens[True] / sum(tokens.values()),
    }


def _loaded(path: Path, data: Path, update: int) -> tuple[Any, Any, Any]:
    state = checkpoint_utils.load_checkpoint_to_cpu(str(path), {"data": str(data)})
    cfg = state["cfg"]
    task = tasks.setup_task(cfg.task)
    # Not as a checkpoint to decode: the teacher is wanted, too.
    model, criterion = task.build_model(cfg.model), task.build_criterion(cfg.criterion)
    model.load_state_dict(state["model"], strict=True)
    task.load_state_dict(state["task_state"])
    task.load_dataset("train")
    if isinstance(task, L2TTask) and task.frozen_teacher is not None:
        task.frozen_teacher.prepare(update, torch.device("cpu"), torch.float32)
    return task, model.eval(), criterion.train()


def _norms_at_the_logits(model: Any, criterion: Any, sample: dict[str, Any]) -> float:
    """Return the sum over tokens of the norm of d loss / d logits."""
    logits = []

    def separate(module: object, inputs: object, output: Any) -> Any:
        logits.append(output[0].detach().requires_grad_())
        return (logits[-1], *output[1:])

    with model.register_forward_hook(separate):
        loss, _, _ = criterion(model, sample)
    (gradient,) = torch.autograd.grad(loss, logits)
    kept = sample["target"].ne(criterion.padding_idx)
    return float(gradient.norm(dim=-1)[kept].sum())


def _noisy_pairs(data: Path) -> frozenset[int]:
    path = data.parent / "train.noise.txt"
    # Empty where nothing was misaligned.
    if not path.is_file() or not path.stat().st_size:
        raise BadInput(f"{path}: no misaligned pairs; expected DATA_BIN of fairseq_l2t.pairs.prepare with --noise")
    lines = read_lines(path)
    for number, line in enumerate(lines, 1):
        if not line.isdecimal():
            raise BadInput(f"{path}, line {number}: {line!r}, expected the number of a training pair")
    return frozenset(int(line) - 1 for line in lines)


def _measure(options: argparse.Namespace) -> None:
    noisy = _noisy_pairs(options.data)
    total = len(read_lines(reference_file(options.data, "train")))
    pairs = sorted(Random(options.seed).sample(range(total), min(options.pairs, total)))
    found = {name: checkpoints_of(folder) for name, folder in options.checkpoints}
    shares: dict[str, list[dict[str, float]]] = {}
    for name, update, path in tqdm(list(_all(found)), desc="checkpoints", unit=""):
        shares.setdefault(name, []).append(share_of_noise(path, update, options.data, pairs, noisy))
    for path in filter(None, (options.json, options.plot)):
        path.parent.mkdir(parents=True, exist_ok=True)
    if options.json:
        write_lines(options.json, (json.dumps({"name": name, **one}) for name, many in shares.items() for one in many))
    for name, lines in shares.items():
        print(name, *(f"{line['update']}: {100 * line['share']:.1f} %" for line in lines), sep="  ")
    print(f"of the tokens: {100 * next(iter(shares.values()))[0]['tokens']:.1f} %")
    if options.plot:
        draw_shares(shares, options.plot)


def _all(found: dict[str, list[tuple[int, Path]]]) -> Iterator[tuple[str, int, Path]]:
    for name, checkpoints in found.items():
        for update, path in checkpoints:
            yield name, update, path


def _named(text: str) -> tuple[str, Path]:
    name, _, folder = text.partition("=")
    if not name or not folder:
        raise argparse.ArgumentTypeError(f"{text}; expected NAME=DIR")
    return name, Path(folder)


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this program."""
    parser.add_argument("data", type=Path, metavar="DATA_BIN", help="made by fairseq_l2t.pairs.prepare with --noise")
    parser.add_argument(
        "--checkpoints",
        type=_named,
        nargs="+",
        required=True,
        metavar="NAME=DIR",
        help="save folders of fairseq-train with --save-interval-updates, and their names in the plot",
    )
    parser.add_argument("--pairs", type=int, default=1000, help="training pairs that are drawn (default: 1000)")
    parser.add_argument("--seed", type=int, default=1, help="of the drawing (default: 1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="gets a line for each checkpoint")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="gets a PNG")


def run(options: argparse.Namespace) -> None:
    """Measure all checkpoints; print, write and draw the shares.

    Raises:
        BadInput: an option, or a file that is missing.
    """
    if options.pairs < 1:
        raise BadInput(f"--pairs: {options.pairs}, expected at least 1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            _measure(options)
        finally:
            logging.disable(logging.NOTSET)
