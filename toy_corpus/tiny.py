"""A tiny prepared corpus for tests and benchmarks."""

from __future__ import annotations

from pathlib import Path

from fairseq_l2t.pairs.prepare import PrepareSettings, prepare
from toy_corpus.corpus import CorpusSettings, write_corpus

__all__ = ["build_tiny_corpus", "tiny_corpus"]


def build_tiny_corpus(
    folder: str | Path, train: int = 400, dev: int = 60, test: int = 40, vocabulary: int = 200, seed: int = 1
) -> Path:
    """Write, encode and binarise a small generated corpus under ``folder``; return its DATA_BIN."""
    folder = Path(folder)
    write_corpus(folder / "raw", CorpusSettings(train=train, dev=dev, test=test, seed=seed))
    return prepare(folder / "raw", folder / "data", PrepareSettings(vocabulary=vocabulary))


def tiny_corpus(base: Path) -> Path:
    """Return DATA_BIN of the tiny corpus under ``base``, made there if it is absent."""
    done = base / "tiny_corpus" / "data" / "bin"
    return done if (done / "prepared.json").exists() else build_tiny_corpus(base / "tiny_corpus")
