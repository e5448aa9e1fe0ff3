"""Students of width 64 and two layers, and a generated corpus of 1,000 symbols: what truncation and cost measure."""

from __future__ import annotations

from pathlib import Path

from fairseq_l2t.pairs.prepare import PrepareSettings, prepare
from toy_corpus.corpus import CorpusSettings, write_corpus

__all__ = ["CROSS_ENTROPY_UPDATES", "FAMILIES", "PHI", "RECIPE", "small_corpus"]

FAMILIES = {
    "lstm": [
        *("--arch", "lstm", "--encoder-embed-dim", "64", "--encoder-hidden-size", "64", "--encoder-layers", "2"),
        *("--decoder-embed-dim", "64", "--decoder-hidden-size", "64", "--decoder-layers", "2"),
        *("--decoder-out-embed-dim", "64", "--lr", "3e-3"),
    ],
    "fconv": [
        *("--arch", "fconv", "--encoder-embed-dim", "64", "--encoder-layers", "[(64,3)]*2"),
        *("--decoder-embed-dim", "64", "--decoder-layers", "[(64,3)]*2", "--decoder-out-embed-dim", "64"),
        *("--lr", "3e-3"),
    ],
    "transformer": [
        *("--arch", "transformer", "--encoder-embed-dim", "64", "--encoder-ffn-embed-dim", "128"),
        *("--encoder-layers", "2", "--encoder-attention-heads", "4", "--encoder-normalize-before"),
        *("--decoder-embed-dim", "64", "--decoder-ffn-embed-dim", "128", "--decoder-layers", "2"),
        *("--decoder-attention-heads", "4", "--decoder-normalize-before", "--share-all-embeddings", "--lr", "3e-3"),
    ],
}
"""Options of each student; the Transformer normalises before its layers."""

PHI = 0.3
"""Initial coefficient of the teacher."""

CROSS_ENTROPY_UPDATES = 20
"""Updates at the start of a life that do not use the teacher."""

RECIPE = [
    *("--optimizer", "adam", "--adam-betas", "(0.9, 0.98)", "--lr-scheduler", "inverse_sqrt"),
    *("--warmup-updates", "50", "--cross-entropy-updates", str(CROSS_ENTROPY_UPDATES), "--max-tokens", "300"),
    *("--clip-norm", "0.5", "--dropout", "0.1", "--initial-coefficient", str(PHI), "--num-workers", "0"),
]
"""Training options of the teacher's students of experiments/grids/recipes, with smaller batches and with clipping."""


def small_corpus(folder: Path) -> Path:
    """Write the demo's corpus at half its size, 30 % of the training pairs misaligned; return its DATA_BIN.

    A corpus that an earlier call made under ``folder`` is used again.
    """
    done = folder / "data" / "bin"
    if (done / "prepared.json").exists():
        return done
    write_corpus(folder / "raw", CorpusSettings(train=4000, dev=400, test=20, seed=1, noise=0.3))
    return prepare(folder / "raw", folder / "data", PrepareSettings(vocabulary=1000))
