"""Subwords: one SentencePiece model for both languages."""

from __future__ import annotations

import io
from pathlib import Path

import sentencepiece

from fairseq_l2t.pairs.parallel_text import BadOption
from fairseq_l2t.storage import write_atomically

__all__ = ["encode", "train_pieces"]


def train_pieces(
    train: tuple[list[str], list[str]], vocabulary: int, path: Path
) -> sentencepiece.SentencePieceProcessor:
    """Train one unigram model on both sides, write it to ``path`` and return it.

    A single thread and no sampling make it depend on the text alone.

    Args:
        train: source lines and target lines.
        vocabulary: greatest number of pieces; a small text gives fewer (``hard_vocab_limit`` is off).
        path: file of the model.

    Raises:
        BadOption: the vocabulary is too small for the characters of the text.
    """
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(train[0] + train[1]),
            model_writer=model,
            vocab_size=vocabulary,
            model_type="unigram",
            character_coverage=1.0,
            hard_vocab_limit=False,
            num_threads=1,
            shuffle_input_sentence=False,
            minloglevel=2,
        )
    except RuntimeError as error:
        raise BadOption("vocabulary", f"{vocabulary}, refused by SentencePiece: {error}") from None
    write_atomically(path, [model.getvalue()])
    return sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())


def encode(pieces: sentencepiece.SentencePieceProcessor, lines: list[str]) -> list[str]:
    """Return each line as its pieces, separated by spaces."""
    return [" ".join(line) for line in pieces.encode(lines, out_type=str)]
