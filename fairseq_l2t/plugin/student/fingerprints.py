"""Fingerprints of the files that determine the updates of a run: dictionaries, training and dev data, initial weights.

They are SHA-256 digests of content, so that a resumed run notices another corpus, another order of the same pairs, or
two swapped lines of a dictionary. Reading a corpus once is cheap beside a student's life on it.
"""

from __future__ import annotations

import hashlib
import re
from argparse import Namespace
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from fairseq import utils
from fairseq.data import Dictionary
from fairseq.tasks.translation import TranslationTask

from fairseq_l2t.storage import vocabulary_fingerprint

__all__ = ["MAY_DIFFER", "input_fingerprints"]

_TRAIN, _DEV = "the training data", "the dev data"
_WEIGHTS = {
    "student_init": "the weights of --student-init",
    "encoder_embed_path": "the embeddings of --encoder-embed-path",
    "decoder_embed_path": "the embeddings of --decoder-embed-path",
}

MAY_DIFFER = frozenset({_TRAIN, _DEV, *_WEIGHTS.values()})
"""Names of the inputs that a resumed run may change with ``--allow-other-data``; the dictionaries are never among them,
because coefficients belong to the words by their indices."""


def input_fingerprints(task: TranslationTask, cfg: Any, namespace: Namespace) -> dict[str, str]:
    """Return the SHA-256 of each input, by its name in messages.

    Args:
        task: the translation task, for its dictionaries, data folders and languages.
        cfg: fairseq's configuration, for the names of the splits.
        namespace: all options by name, for the files of initial weights.
    """
    splits = cfg.dataset
    found = {
        "the source dictionary": _dictionary(task.source_dictionary),
        "the target dictionary": _dictionary(task.target_dictionary),
        # fairseq combines train, train1, ... of all its folders.
        _TRAIN: _digest(_split_files(task.cfg, splits.train_subset, r"[0-9]*")),
        _DEV: _digest(path for split in splits.valid_subset.split(",") for path in _split_files(task.cfg, split, "")),
    }
    given = vars(namespace)
    for option, name in _WEIGHTS.items():
        path = given.get(option)
        if path and Path(path).is_file():
            found[name] = _digest([Path(path)])
    return found


def _dictionary(dictionary: Dictionary) -> str:
    return vocabulary_fingerprint(dictionary.symbols)


def _split_files(cfg: Any, split: str, number: str) -> Iterator[Path]:
    """Yield the files of a split in the order of their names: data and index of both languages, and alignments."""
    either = f"(?:{re.escape(str(cfg.source_lang))}|{re.escape(str(cfg.target_lang))})"
    pattern = re.compile(rf"{re.escape(split)}{number}\.(?:align\.)?{either}-{either}(?:\.{either})?(?:\.(?:bin|idx))?")
    for folder in utils.split_paths(cfg.data):
        yield from (path for path in sorted(Path(folder).iterdir()) if pattern.fullmatch(path.name) and path.is_file())


def _digest(paths: Iterable[Path]) -> str:
    """Return the digest of names and contents; names, because they decide which file is source and which is target."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{path.name}\0{content}\n".encode())
    return digest.hexdigest()
