"""Reads and writes parallel text, and misaligns a share of it to make noisy training data."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from random import Random
from typing import Any

from fairseq_l2t.storage import write_atomically

__all__ = [
    "LANGUAGES",
    "SPLITS",
    "BadInput",
    "BadOption",
    "misalign",
    "read_json",
    "read_json_lines",
    "read_lines",
    "read_split",
    "write_lines",
]

SPLITS = ("train", "valid", "test")
LANGUAGES = ("de", "en")
_ATTEMPTS = 100


class BadInput(Exception):
    """Invalid user input; the message names the file or option, the value received and the values allowed."""


class BadOption(BadInput):
    """An invalid option value.

    Args:
        option: the option's Python name, such as ``noise_seed``; grids and command lines spell it differently.
        reason: the value and the values allowed.
    """

    def __init__(self, option: str, reason: str) -> None:
        super().__init__(f"--{option.replace('_', '-')}: {reason}")
        self.option, self.reason = option, reason


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write each of ``lines`` and a newline; the file is written completely or not at all."""
    write_atomically(path, ["".join(line + "\n" for line in lines).encode()])


def read_json(path: Path, instead: str) -> Any:
    """Return the content of a JSON file.

    Args:
        path: the file; it must exist.
        instead: the remedy for a damaged file, for the error message.

    Raises:
        BadInput: the file is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadInput(f"{path}: damaged, expected JSON ({error}); {instead}") from None


def read_json_lines(path: Path, expected: str) -> list[dict[str, Any]]:
    """Return the objects of a file with one JSON object per line.

    Args:
        path: the file; it must exist.
        expected: the description of a valid line, for the error message.

    Raises:
        BadInput: a line is not JSON, for example because it is incomplete, or the file is not UTF-8.
    """
    found = []
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: not UTF-8 text (byte {error.start}), {expected}") from None
    for number, line in enumerate(text.splitlines(), 1):
        try:
            found.append(json.loads(line))
        except ValueError:
            raise BadInput(f"{path}, line {number}: {line!r:.80}, {expected}") from None
    return found


def read_lines(path: Path) -> list[str]:
    """Return the lines of a UTF-8 file, split at newlines only: other separators such as U+2028 stay in the line.

    Raises:
        BadInput: the file is missing, a folder, unreadable, empty or not UTF-8.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise BadInput(f"{path}: no such file") from None
    except IsADirectoryError:
        raise BadInput(f"{path}: a folder, expected a text file") from None
    except PermissionError:
        raise BadInput(f"{path}: not readable") from None
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: not UTF-8 text (byte {error.start})") from None
    if not text.strip():
        raise BadInput(f"{path}: empty, expected one sentence a line")
    return text.removesuffix("\n").split("\n")


def read_split(folder: Path, split: str) -> tuple[list[str], list[str]]:
    """Return both sides of ``split``: German lines and English lines.

    Raises:
        BadInput: a file is missing or empty, or the sides differ in length.
    """
    source_path, target_path = (folder / f"{split}.{language}" for language in LANGUAGES)
    source, target = read_lines(source_path), read_lines(target_path)
    if len(source) != len(target):
        raise BadInput(
            f"{source_path} has {len(source)} lines, {target_path} has {len(target)}; expected equal numbers of lines"
        )
    return source, target


def misalign(targets: Sequence[str], share: float, rng: Random) -> tuple[list[str], list[int]]:
    """Give a share of the lines the translation of another line, as in badly crawled data.

    The targets of randomly chosen lines are permuted: every target still occurs, and no chosen line keeps its text.

    Args:
        targets: target lines.
        share: share of the lines to misalign, in [0, 1].
        rng: source of the choice.

    Returns:
        The new targets, and the sorted indices (from 0) of the lines changed.

    Raises:
        BadOption: the share is outside [0, 1], or too few lines differ for a permutation of that size.
    """
    if not 0.0 <= share <= 1.0:
        raise BadOption("noise", f"{share}, expected a share from 0 to 1")
    count = round(share * len(targets))
    if count == 0:
        return list(targets), []
    for _ in range(_ATTEMPTS):
        chosen = rng.sample(range(len(targets)), count)
        # Rotating a random order by one moves every line.
        pairs = list(zip(chosen, chosen[1:] + chosen[:1], strict=True))
        if all(targets[here] != targets[there] for here, there in pairs):
            mixed = list(targets)
            for here, there in pairs:
                mixed[here] = targets[there]
            return mixed, sorted(chosen)
    raise BadOption(
        "noise", f"{share}, {count} of {len(targets)} lines cannot be misaligned, because too few of them differ"
    )
