"""The target dictionary as fairseq-preprocess writes it, read without fairseq.

Source: fairseq 0.12.2, data/dictionary.py: four special symbols, then one symbol per line with its count.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from fairseq_l2t.inspection.errors import InspectionError, require_moderate_size
from fairseq_l2t.storage import TeacherFile, Vocabulary

__all__ = ["NEVER_TARGETS", "TargetDictionary", "read_dictionary", "require_dictionary_of"]

SPECIAL_SYMBOLS = ("<s>", "<pad>", "</s>", "<unk>")
NEVER_TARGETS = ("<s>", "<pad>")
"""No target sentence contains the first; the loss ignores the second."""

_OVERWRITE = "#fairseq:overwrite"
_MOST_DIGITS = 20
"""Of a count: 2^64 has 20."""


@dataclass(frozen=True)
class TargetDictionary:
    """Symbols in the order of their indices.

    Args:
        symbols: special ones included.
        counts: occurrences in the training text; None for the special symbols, which the file does not list.
    """

    symbols: tuple[str, ...]
    counts: tuple[int | None, ...]

    @property
    def vocabulary(self) -> Vocabulary:
        """Size and fingerprint, as in a teacher file."""
        return Vocabulary.of_symbols(self.symbols)


def read_dictionary(path: str | os.PathLike[str]) -> TargetDictionary:
    """Read a dictionary such as ``dict.en.txt``.

    Raises:
        InspectionError: the file is unreadable or not UTF-8, or a line is not ``<symbol> <count>``.
    """
    try:
        require_moderate_size(path)
        with open(path, encoding="utf-8") as file:
            lines = file.readlines()
    except OSError as error:
        raise InspectionError(f"--dict {os.fspath(path)}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InspectionError(f"--dict {os.fspath(path)}: not UTF-8 ({error.reason})") from error
    symbols: list[str] = list(SPECIAL_SYMBOLS)
    counts: list[int | None] = [None] * len(symbols)
    seen = set(symbols)
    for number, line in enumerate(lines, start=1):
        symbol, count, overwrite = _parse(line, f"--dict {os.fspath(path)}, line {number}")
        if symbol in seen and not overwrite:
            raise InspectionError(f"--dict {os.fspath(path)}, line {number}: {symbol!r} occurs twice")
        seen.add(symbol)
        symbols.append(symbol)
        counts.append(count)
    return TargetDictionary(tuple(symbols), tuple(counts))


def require_dictionary_of(teacher_file: TeacherFile, dictionary: TargetDictionary, path: str) -> None:
    """Check that ``dictionary``, read from ``path``, is the teacher's.

    Raises:
        InspectionError: its size, symbols or their order differ.
    """
    own, given = teacher_file.vocabulary, dictionary.vocabulary
    if own.size != given.size:
        raise InspectionError(
            f"--dict {path}: {given.size} entries with the {len(SPECIAL_SYMBOLS)} special symbols; "
            f"the teacher {teacher_file.path} has {own.size}"
        )
    if own.sha256 != given.sha256:
        raise InspectionError(
            f"--dict {path}: fingerprint {given.sha256}; the teacher {teacher_file.path} has {own.sha256}: "
            "other symbols, or the same in another order; expected the dictionary of the target language"
        )


def _parse(line: str, place: str) -> tuple[str, int, bool]:
    # Split at the last space, as in fairseq: a symbol may contain spaces.
    symbol, _, field = line.rstrip().rpartition(" ")
    overwrite = field == _OVERWRITE
    if overwrite:
        symbol, _, field = symbol.rpartition(" ")
    if not symbol or not field.removeprefix("-").isdecimal() or len(field) > _MOST_DIGITS:
        raise InspectionError(f"{place}: {line.rstrip()[:60]!r}; expected '<symbol> <count>'")
    return symbol, int(field), overwrite
