"""Checks of pretrained embeddings (``--encoder-embed-path``, ``--decoder-embed-path``) before a model reads them."""

from __future__ import annotations

import argparse

from fairseq import utils
from fairseq.data import Dictionary
from fairseq.tasks.translation import TranslationTask

from fairseq_l2t.plugin.student_options import OptionError

__all__ = ["refuse_embeddings"]

_FORMAT = "expected a header line, then lines of a word and its numbers, separated by spaces, in UTF-8"


def refuse_embeddings(namespace: argparse.Namespace, task: TranslationTask) -> None:
    """Check the files of pretrained embeddings as fairseq reads them.

    fairseq ends in a ``RuntimeError`` for vectors of another width, and repeats a vector of one number.

    Args:
        namespace: all options.
        task: the translation task; fairseq uses the vectors of the words in its dictionaries.

    Raises:
        OptionError: a file that cannot be read, has vectors of another width than the model's, or none of its words is
            in the dictionary.
    """
    given = vars(namespace)
    for side, dictionary in (("encoder", task.source_dictionary), ("decoder", task.target_dictionary)):
        path, width = given.get(f"{side}_embed_path"), given.get(f"{side}_embed_dim")
        if path and width is not None:
            _refuse_file(path, int(width), side, dictionary)


def _refuse_file(path: str, width: int, side: str, dictionary: Dictionary) -> None:
    option = f"--{side}-embed-path"
    try:
        vectors = utils.parse_embedding(path)
    except OSError as error:
        raise OptionError(f"{option}: {path}: {error.strerror}; expected a text file of embeddings") from error
    except StopIteration as error:
        raise OptionError(f"{option}: {path} is empty; {_FORMAT}") from error
    except ValueError as error:
        raise OptionError(f"{option}: {path}: {error}; {_FORMAT}") from error
    used = {word: vector for word, vector in vectors.items() if word in dictionary}
    for word, vector in used.items():
        if len(vector) != width:
            raise OptionError(
                f"{option}: {path}: length of the vector of {word}: {len(vector)}; expected {width} "
                f"(--{side}-embed-dim)"
            )
    if not used:
        raise OptionError(f"{option}: {path}: none of its {len(vectors)} words is in the dictionary; {_FORMAT}")
