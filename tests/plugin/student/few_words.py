"""Data folders of a handful of sentences, written down pair by pair."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from fairseq import options
from fairseq_cli import preprocess

Pairs = Sequence[tuple[str, str]]


def binarise(folder: Path, train: Pairs, valid: Pairs) -> Path:
    """Write (source, target) pairs through fairseq-preprocess; return DATA_BIN, whose dictionaries hold no filling."""
    for split, pairs in (("train", train), ("valid", valid)):
        for side, language in enumerate(("de", "en")):
            (folder / f"{split}.{language}").write_text("".join(f"{pair[side]}\n" for pair in pairs), encoding="utf-8")
    command = ["--source-lang", "de", "--target-lang", "en", "--padding-factor", "1", "--destdir", str(folder / "bin")]
    command += ["--trainpref", str(folder / "train"), "--validpref", str(folder / "valid")]
    logger = logging.getLogger(preprocess.__name__)
    before = list(logger.handlers)
    preprocess.main(options.get_preprocessing_parser().parse_args(command))
    for handler in set(logger.handlers) - set(before):  # its log file, which fairseq leaves open
        logger.removeHandler(handler)
        handler.close()
    return folder / "bin"
