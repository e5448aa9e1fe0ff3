"""The runs of these tests: a tiny Transformer, a short life, and the folders they are written into."""

import json
import re
from pathlib import Path

import torch

from fairseq_l2t.compat.checkpoint_types import checkpoint_types

MODEL = [
    *("--arch", "transformer", "--encoder-layers", "1", "--decoder-layers", "1", "--dropout", "0.2"),
    *("--encoder-embed-dim", "16", "--encoder-ffn-embed-dim", "32", "--encoder-attention-heads", "2"),
    *("--decoder-embed-dim", "16", "--decoder-ffn-embed-dim", "32", "--decoder-attention-heads", "2"),
]
TRAINING = [
    *("--optimizer", "adam", "--lr", "0.02", "--lr-scheduler", "inverse_sqrt", "--warmup-updates", "2"),
    *("--clip-norm", "1.0", "--batch-size", "8", "--seed", "3"),
]
TEACHER_UPDATES = 8
TEACHER = [
    *("--preset", "short-windows"),
    *("--total-updates", "6", "--unroll-length", "2", "--teacher-updates", str(TEACHER_UPDATES)),
    *("--teacher-lr", "0.1", "--dev-batch", "8", "--log-format", "simple"),
]
"""Lives of 2 updates of cross-entropy and 2 windows of 2; the high rate spreads the coefficients in 8 updates."""

RUN_FOLDER = "run"
"""Relative to the working folder of each run: their command lines, which teacher files record, stay the same."""


def teacher_command(data_bin, *more):
    """The arguments of l2t-train-teacher; options in ``more`` override."""
    return [str(data_bin), *MODEL, *TRAINING, *TEACHER, "--save-dir", RUN_FOLDER, *map(str, more)]


def log_lines(folder):
    """The JSON lines of a teacher's training without their seconds, the one thing that may differ."""
    path = Path(folder) / "teacher_log.jsonl"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    lines = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def contents(folder):
    """{name: bytes} of the files of a run, without the lock file, which holds a process number."""
    return {path.name: path.read_bytes() for path in Path(folder).iterdir() if path.name != ".l2t.lock"}


_UNUSED = re.compile(r"\._float_tensor$|\.layers\.\d+\.(in_proj|out_proj|fc1|fc2)_(weight|bias)$")
"""What fairseq stores beside the weights: a buffer that is never filled, and copies of the encoder's weights, made when
a checkpoint is loaded, for a fast path that stays off (fairseq_l2t/compat/encoder_fast_path.py)."""


def checkpoint(path):
    """The entries of a checkpoint."""
    # Not for the time of a `with`, which would take back at its end what a program of this process has allowed.
    torch.serialization.add_safe_globals(checkpoint_types())
    return torch.load(path, weights_only=True)


def same_tensors(first, second):
    """Whether two models in checkpoints have equal weights."""
    assert first.keys() == second.keys()
    return all(torch.equal(first[name], second[name]) for name in first if not _UNUSED.search(name))
