"""A corpus of random words with a vocabulary of any size, binarised by fairseq-preprocess, for timing alone."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

from fairseq_l2t.pairs.programs import StepFailed, console_script

__all__ = ["write_random_corpus"]

_LENGTHS = range(8, 31)
_SHOWN_CHARACTERS = 2000


def write_random_corpus(folder: Path, vocabulary: int, sentences: int = 5000, seed: int = 1) -> Path:
    """Write pairs of random sentences of 8 to 30 words under ``folder`` and return DATA_BIN.

    Args:
        folder: exists.
        vocabulary: words on each side; all of them occur.
        sentences: training pairs; ``valid`` gets a hundredth.
        seed: of the draws.

    Raises:
        StepFailed: fairseq-preprocess failed.
    """
    draw = random.Random(seed)
    words = [f"word{number}" for number in range(vocabulary)]
    for language in ("de", "en"):
        drawn = [draw.choices(words, k=draw.choice(_LENGTHS)) for _ in range(sentences)]
        drawn += [words[start : start + _LENGTHS[-1]] for start in range(0, vocabulary, _LENGTHS[-1])]
        _write(folder / f"train.{language}", drawn)
        _write(folder / f"valid.{language}", drawn[: sentences // 100 + 1])
    command = [console_script("fairseq-preprocess"), "--source-lang", "de", "--target-lang", "en"]
    command += ["--trainpref", str(folder / "train"), "--validpref", str(folder / "valid")]
    command += ["--destdir", str(folder / "bin"), "--workers", "1", "--joined-dictionary"]
    result = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if result.returncode != 0:
        raise StepFailed(f"exit code {result.returncode} of {command[0]}: {result.stdout[-_SHOWN_CHARACTERS:]}")
    return folder / "bin"


def _write(path: Path, sentences: list[list[str]]) -> None:
    path.write_text("".join(" ".join(sentence) + "\n" for sentence in sentences), encoding="utf-8")
