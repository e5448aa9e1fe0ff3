"""Tiny students: every family of fairseq's models at width 16, for a corpus of 400 pairs, and every optimizer."""

from __future__ import annotations

from pathlib import Path

from fairseq_l2t.checks.differences import spread
from fairseq_l2t.loss.teacher import Teacher
from fairseq_l2t.plugin import FairseqStudent

_TRANSFORMER_SIZES = [
    *("--encoder-layers", "2", "--encoder-embed-dim", "16", "--encoder-ffn-embed-dim", "32"),
    *("--decoder-layers", "2", "--decoder-embed-dim", "16", "--decoder-ffn-embed-dim", "32"),
    *("--encoder-attention-heads", "2", "--decoder-attention-heads", "2", "--dropout", "0.2"),
]
_LSTM_SIZES = [
    *("--encoder-embed-dim", "16", "--encoder-hidden-size", "16", "--decoder-embed-dim", "16"),
    *("--decoder-hidden-size", "16", "--decoder-out-embed-dim", "16", "--dropout", "0.2"),
]
_FCONV_SIZES = [
    *("--encoder-embed-dim", "16", "--encoder-layers", "[(16,3)]*2", "--decoder-embed-dim", "16"),
    *("--decoder-layers", "[(16,3)]*2", "--decoder-out-embed-dim", "16", "--dropout", "0.2"),
]
_LIGHTCONV_SIZES = [
    *("--encoder-layers", "2", "--encoder-embed-dim", "16", "--encoder-conv-dim", "16"),
    *("--decoder-layers", "2", "--decoder-embed-dim", "16", "--decoder-conv-dim", "16"),
    *("--encoder-ffn-embed-dim", "32", "--decoder-ffn-embed-dim", "32", "--dropout", "0.2", "--weight-dropout", "0.1"),
    *("--encoder-attention-heads", "2", "--decoder-attention-heads", "2"),
    *("--encoder-kernel-size-list", "[3,5]", "--decoder-kernel-size-list", "[3,5]"),
]
TRANSFORMER = ["--arch", "transformer_iwslt_de_en", *_TRANSFORMER_SIZES]
FAMILIES: dict[str, list[str]] = {
    "transformer": TRANSFORMER,
    "transformer_tied": [*TRANSFORMER, "--share-decoder-input-output-embed"],
    "transformer_pre_norm": [
        *("--arch", "transformer", *_TRANSFORMER_SIZES, "--attention-dropout", "0.1"),
        *("--encoder-normalize-before", "--decoder-normalize-before", "--share-all-embeddings"),
    ],
    "transformer_attention_dropout": [*TRANSFORMER, "--attention-dropout", "0.1", "--activation-dropout", "0.1"],
    "lstm": ["--arch", "lstm", *_LSTM_SIZES],
    "lstm_bidirectional": [
        *("--arch", "lstm", *_LSTM_SIZES, "--encoder-bidirectional", "--encoder-layers", "2"),
        *("--decoder-layers", "2", "--share-decoder-input-output-embed"),
    ],
    "lstm_2_layers": ["--arch", "lstm", *_LSTM_SIZES, "--encoder-layers", "2", "--decoder-layers", "2"],
    "lstm_no_attention": ["--arch", "lstm", *_LSTM_SIZES, "--decoder-attention", "False"],
    "lstm_wiseman": ["--arch", "lstm_wiseman_iwslt_de_en", *_LSTM_SIZES],
    "lstm_luong": ["--arch", "lstm_luong_wmt_en_de", *_LSTM_SIZES, "--encoder-layers", "2", "--decoder-layers", "2"],
    "fconv": ["--arch", "fconv", *_FCONV_SIZES],
    "fconv_iwslt": ["--arch", "fconv_iwslt_de_en", *_FCONV_SIZES],
    "fconv_tied": ["--arch", "fconv", *_FCONV_SIZES, "--share-input-output-embed"],
    "lightconv": [
        *("--arch", "lightconv_iwslt_de_en", *_LIGHTCONV_SIZES),
        *("--encoder-conv-type", "lightweight", "--decoder-conv-type", "lightweight"),
    ],
    "dynamicconv": [
        *("--arch", "lightconv_iwslt_de_en", *_LIGHTCONV_SIZES),
        *("--encoder-conv-type", "dynamic", "--decoder-conv-type", "dynamic"),
    ],
}
_PADDED_LEFT = ("--share-decoder-input-output-embed", "--left-pad-target")
_SOURCE_PADDED_RIGHT = "--left-pad-source"
"""fairseq's flag: the default is left, so that the option switches it off."""

FAMILIES |= {
    "transformer_tied_left": [*TRANSFORMER, *_PADDED_LEFT],
    "lstm_left": [*FAMILIES["lstm"], "--left-pad-target"],
    "lstm_tied_left": [*FAMILIES["lstm"], *_PADDED_LEFT],
    "lstm_bidirectional_left": [*FAMILIES["lstm_bidirectional"], "--left-pad-target"],
    "fconv_tied_left": [*FAMILIES["fconv_tied"], "--left-pad-target"],
    "lightconv_tied_left": [*FAMILIES["lightconv"], *_PADDED_LEFT],
    "dynamicconv_tied_left": [*FAMILIES["dynamicconv"], *_PADDED_LEFT],
    "transformer_learned_positions": [
        *(*TRANSFORMER, "--encoder-learned-pos", "--decoder-learned-pos", _SOURCE_PADDED_RIGHT),
    ],
    "lstm_frozen_embeddings": [*FAMILIES["lstm"], "--encoder-freeze-embed", _SOURCE_PADDED_RIGHT],
}
"""Options of each student, by name of the family."""

BATCHES = ["--batch-size", "8", "--update-freq", "2", "--clip-norm", "0.2", "--seed", "3"]
RECIPE = [
    *BATCHES,
    *("--lr-scheduler", "inverse_sqrt", "--warmup-updates", "2", "--warmup-init-lr", "0.001"),
]
"""Dropout, clipping that is active, a schedule that rises and falls, two micro-batches an update."""

LIFE = ["--total-updates", "20", "--cross-entropy-updates", "1"]
"""Options of a taught student; the task and the teacher training share them."""

OPTIMIZERS = {
    "sgd": ["--optimizer", "sgd", "--lr", "1.0"],
    "momentum": ["--optimizer", "sgd", "--momentum", "0.9", "--lr", "0.3", "--weight-decay", "0.001"],
    "nag": ["--optimizer", "nag", "--momentum", "0.8", "--lr", "0.3", "--weight-decay", "0.001"],
    "adam": ["--optimizer", "adam", "--adam-betas", "(0.9, 0.98)", "--lr", "0.01"],
    "adamw": ["--optimizer", "adam", "--adam-betas", "(0.9, 0.98)", "--lr", "0.01", "--weight-decay", "0.1"],
    "adagrad": ["--optimizer", "adagrad", "--lr", "0.02", "--weight-decay", "0.001"],
}


def arguments(data: Path, family: str = "transformer", optimizer: str = "adam", *more: str) -> list[str]:
    """Return the command line of a student; options in ``more`` override."""
    return [str(data), *FAMILIES[family], *OPTIMIZERS[optimizer], *RECIPE, *LIFE, "--dev-batch", "8", *more]


def make_student(data: Path, family: str = "transformer", optimizer: str = "adam", *more: str) -> FairseqStudent:
    """Return a student at the beginning of its life, in float32."""
    return FairseqStudent.from_args(arguments(data, family, optimizer, *more))


def spread_teacher(student: FairseqStudent, seed: int = 5, form: str = "diagonal") -> Teacher:
    """Return a teacher whose coefficients differ between keys, words and states; see `checks.differences.spread`."""
    return spread(Teacher.for_student(student, keys=3, seed=seed, form=form), seed)
