"""Reading and writing parallel text with clear errors, and the misalignment that makes it noisy."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from random import Random
from typing import Any

from fairseq_l2t.storage import write_atomically

SPLITS = ("train", "valid", "test")
LANGUAGES = ("de", "en")
_ATTEMPTS = 100


class BadInput(Exception):
    """Input that a person can mend; the message names the file or option, what came and what is expected."""


class BadOption(BadInput):
    """A value that is refused, by the name it has in Python: a command line calls it otherwise than a grid does."""

    def __init__(self, option: str, reason: str) -> None:
        super().__init__(f"--{option.replace('_', '-')}: {reason}")
        self.option, self.reason = option, reason


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write one line each; the file appears whole or not at all."""
    write_atomically(path, ["".join(line + "\n" for line in lines).encode()])


def read_json(path: Path, instead: str) -> Any:
    """Read a JSON file that a program of ours has written.

    Args:
        path: the file; it must exist.
        instead: what a person can do where it is damaged.

    Raises:
        BadInput: it is damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadInput(f"{path}: damaged, expected JSON ({error}); {instead}") from None


def read_json_lines(path: Path, expected: str) -> list[dict]:
    """Read a file of one JSON object a line.

    Args:
        path: the file; it must exist.
        expected: what a line should have been, for the error.

    Raises:
        BadInput: a line is no JSON, such as one that was cut, or the file is not UTF-8.
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
    """The lines of a UTF-8 file, split at newlines only (U+2028 and friends stay inside a line).

    Raises:
        BadInput: the file is missing, a folder, empty or not UTF-8.
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
    """Both sides of ``split`` (German, English).

    Raises:
        BadInput: a file is missing or empty, or the sides differ in length.
    """
    source_path, target_path = (folder / f"{split}.{language}" for language in LANGUAGES)
    source, target = read_lines(source_path), read_lines(target_path)
    if len(source) != len(target):
        raise BadInput(
            f"{source_path} has {len(source)} lines, {target_path} has {len(target)}; "
            "a parallel corpus needs as many on both sides"
        )
    return source, target


def misalign(targets: Sequence[str], share: float, rng: Random) -> tuple[list[str], list[int]]:
    """Give a share of the lines the translation of another chosen line, as in badly crawled data.

    Returns the new targets and the sorted indices (from 0) of the lines changed. The targets are permuted
    among the chosen lines without a fixed point: all targets are still there, no chosen line keeps its text.

    Raises:
        BadInput: the share is outside [0, 1], or the lines are too few or too alike to be misaligned.
    """
    if not 0.0 <= share <= 1.0:
        raise BadOption("noise", f"{share}, expected a share from 0 to 1")
    count = round(share * len(targets))
    if count == 0:
        return list(targets), []
    for _ in range(_ATTEMPTS):
        chosen = rng.sample(range(len(targets)), count)
        # rotating a random order by one moves every line
        pairs = list(zip(chosen, chosen[1:] + chosen[:1], strict=True))
        if all(targets[here] != targets[there] for here, there in pairs):
            mixed = list(targets)
            for here, there in pairs:
                mixed[here] = targets[there]
            return mixed, sorted(chosen)
    raise BadOption("noise", f"{share}, cannot misalign {count} of {len(targets)} lines, too few or too alike")
