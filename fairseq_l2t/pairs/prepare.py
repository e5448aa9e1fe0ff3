"""Prepares raw parallel text for fairseq: removal of overlap, noise, SentencePiece, fairseq-preprocess.

    python -m fairseq_l2t.pairs.prepare RAW_DIR --output-dir out/multi30k --vocabulary 4000

RAW_DIR holds {train,valid,test}.{de,en}. The output folder holds ``text/`` (the raw text that is used, and the
reference for scoring), ``pieces/`` (the text in subwords), ``spm.model`` and ``bin/``, the DATA_BIN of fairseq.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shlex
import shutil
import signal
import subprocess
import sys
import unicodedata
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random
from typing import Any

from fairseq_l2t.pairs.parallel_text import (
    LANGUAGES,
    SPLITS,
    BadInput,
    BadOption,
    misalign,
    read_json,
    read_split,
    write_lines,
)
from fairseq_l2t.pairs.programs import StepFailed, console_script, die_with_parent
from fairseq_l2t.pairs.subwords import encode, train_pieces

__all__ = ["PART", "RECORD", "PrepareSettings", "Split", "main", "prepare", "reference_file"]

RECORD = "prepared.json"
"""File in DATA_BIN with the settings and the digest of the text it was made from."""
PART = "part"
"""Name of the extra set that holds a share of the training pairs."""
Split = tuple[list[str], list[str]]
"""Source lines and target lines."""
_LOG_LINES = 20
"""Last lines of a failed program's output that the error shows."""
_COMMAND = "python -m fairseq_l2t.pairs.prepare"
_USAGE_ERROR = 2


@dataclass(frozen=True)
class PrepareSettings:
    """Settings of the preparation.

    Args:
        vocabulary: greatest number of subwords, of both languages together.
        joined_dictionary: whether both languages share one fairseq dictionary.
        noise: share of the training targets to misalign, in [0, 1].
        noise_seed: seed of the choice of misaligned lines.
        train_limit: number of training pairs to use, from the first; 0 uses all.
        part: share of the training pairs, from the first, that are also written as the set ``part``, in [0, 1].
    """

    vocabulary: int = 4000
    joined_dictionary: bool = True
    noise: float = 0.0
    noise_seed: int = 1
    train_limit: int = 0
    part: float = 0.0

    def check(self) -> None:
        """Check the ranges.

        Raises:
            BadOption: a value outside its range.
        """
        if self.vocabulary < 1:
            raise BadOption("vocabulary", f"{self.vocabulary}, expected at least 1")
        if self.train_limit < 0:
            raise BadOption("train_limit", f"{self.train_limit}, expected 0 (all) or more")
        for option, share in (("noise", self.noise), ("part", self.part)):
            if not 0.0 <= share <= 1.0:
                raise BadOption(option, f"{share}, expected 0 (none) or a share up to 1")


def prepare(raw: Path, output: Path, settings: PrepareSettings, replace: bool = True) -> Path:
    """Prepare ``raw`` in ``output`` and return DATA_BIN; do nothing if it exists with the same text and settings.

    Args:
        raw: folder of the text.
        output: folder to write to, created if absent.
        settings: the settings.
        replace: True replaces a DATA_BIN of other text or settings, False refuses it.

    Raises:
        BadInput: a file is missing, empty or of another length than its partner, a setting is out of range, or
            DATA_BIN was made by another program.
        StepFailed: fairseq-preprocess failed.
    """
    settings.check()
    splits = {split: read_split(raw, split) for split in SPLITS}
    record = dict(asdict(settings), input=_digest(splits))
    data_bin = output / "bin"
    if data_bin.exists():
        changed = _changed(data_bin / RECORD, record)
        if not changed:
            return data_bin
        if not replace:
            raise BadInput(
                f"{data_bin}: was made with other {', '.join(changed)}, and runs may depend on it; "
                f"remove {output.parent} or choose another --output-dir"
            )
        shutil.rmtree(data_bin)
    splits["train"], noisy = _training_pairs(splits, settings)
    write_lines(_folder(output) / "train.noise.txt", (str(index + 1) for index in noisy))
    if settings.part:
        count = max(1, round(settings.part * len(splits["train"][0])))
        splits[PART] = (splits["train"][0][:count], splits["train"][1][:count])
    _write_splits(_folder(output / "text"), splits)
    pieces = train_pieces(splits["train"], settings.vocabulary, output / "spm.model")
    encoded = {split: (encode(pieces, source), encode(pieces, target)) for split, (source, target) in splits.items()}
    _write_splits(_folder(output / "pieces"), encoded)
    _binarise(output / "pieces", data_bin, settings, record)
    return data_bin


def reference_file(data_bin: Path, split: str = "test", language: str = LANGUAGES[1]) -> Path:
    """Return the file with the original target text of a split, the reference for scoring."""
    return data_bin.parent / "text" / f"{split}.{language}"


def _changed(path: Path, record: dict[str, Any]) -> list[str]:
    """Return the settings in which the file ``path`` differs from ``record``.

    Raises:
        BadInput: DATA_BIN was not made by this program, which never removes such a folder, or the file is damaged.
    """
    if not path.exists():
        raise BadInput(
            f"{path.parent}: exists and was not made by {_COMMAND} (no {RECORD}); "
            "move it away or choose another --output-dir"
        )
    before = read_json(path, f"remove {path.parent} to prepare it again")
    if not isinstance(before, dict):
        raise BadInput(f"{path}: {before!r}, expected a mapping; remove {path.parent} to prepare it again")
    return [
        "text" if name == "input" else f"{name} ({before.get(name)}, now {value})"
        for name, value in record.items()
        if before.get(name) != value
    ]


def _training_pairs(splits: dict[str, Split], settings: PrepareSettings) -> tuple[Split, list[int]]:
    """Return the training pairs without those of valid and test, limited and misaligned, and the misaligned indices."""
    for split in ("valid", "test"):
        for side, language in zip(splits[split], LANGUAGES, strict=True):
            for number, line in enumerate(side, 1):
                if not line.strip():
                    raise BadInput(f"{split}.{language}, line {number}: empty, expected a sentence")
    held_out = {_key(line) for split in ("valid", "test") for line in splits[split][0]}
    source, target = splits["train"]
    pairs = [pair for pair in zip(source, target, strict=True) if pair[0].strip() and pair[1].strip()]
    kept = [pair for pair in pairs if _key(pair[0]) not in held_out]
    print(
        f"train: {len(source)} pairs, {len(source) - len(pairs)} with an empty side left out, "
        f"{len(pairs) - len(kept)} left out because their source also occurs in valid or test",
        flush=True,
    )
    kept = kept[: settings.train_limit or None]
    if not kept:
        raise BadInput("train: no pair is left")
    rng = Random(f"{settings.noise_seed} noise")
    targets, noisy = misalign([pair[1] for pair in kept], settings.noise, rng)
    print(f"train: {len(kept)} pairs used" + (f", {len(noisy)} of them misaligned here" if noisy else ""), flush=True)
    return ([pair[0] for pair in kept], targets), noisy


def _key(line: str) -> str:
    """Return a sentence as SentencePiece reads it: differences in spaces and Unicode form are removed."""
    return " ".join(unicodedata.normalize("NFKC", line).split())


def _binarise(pieces: Path, data_bin: Path, settings: PrepareSettings, record: dict[str, Any]) -> None:
    """Run fairseq-preprocess; DATA_BIN is created complete, with the record in it, or not at all."""
    partial = data_bin.with_name(data_bin.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    source, target = LANGUAGES
    command = [
        console_script("fairseq-preprocess"),
        "--source-lang",
        source,
        "--target-lang",
        target,
        "--trainpref",
        str(pieces / "train"),
        "--validpref",
        ",".join(str(pieces / split) for split in ("valid", *((PART,) if settings.part else ()))),
        "--testpref",
        str(pieces / "test"),
        "--destdir",
        str(partial),
        "--workers",
        "1",
    ]
    result = subprocess.run(
        command + (["--joined-dictionary"] if settings.joined_dictionary else []),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        preexec_fn=die_with_parent(),
    )
    if result.returncode != 0:
        tail = "\n".join(result.stdout.splitlines()[-_LOG_LINES:])
        raise StepFailed(f"exit code {result.returncode} of\n$ {shlex.join(command)}\nlast lines:\n{tail}")
    for path in partial.glob("valid1.*"):  # the name fairseq-preprocess gives a second validation set
        path.rename(path.with_name(path.name.replace("valid1", PART, 1)))
    write_lines(partial / RECORD, [json.dumps(record)])
    partial.rename(data_bin)


def _digest(splits: dict[str, Split]) -> str:
    digest = hashlib.sha256()
    for split in SPLITS:
        for side in splits[split]:
            digest.update(("\n".join(side) + "\0").encode())
    return digest.hexdigest()


def _folder(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


def _write_splits(folder: Path, splits: dict[str, Split]) -> None:
    for split, sides in splits.items():
        for language, lines in zip(LANGUAGES, sides, strict=True):
            write_lines(folder / f"{split}.{language}", lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code (2 for invalid input, 128 + SIGINT when interrupted)."""
    options = _parser().parse_args(arguments)
    settings = PrepareSettings(
        options.vocabulary,
        not options.separate_dictionaries,
        options.noise,
        options.noise_seed,
        options.train_limit,
        options.part,
    )
    try:
        print(prepare(options.raw, options.output_dir, settings))
    except (BadInput, StepFailed, OSError) as error:
        print(f"{_COMMAND}: error: {error}", file=sys.stderr)
        return _USAGE_ERROR
    except KeyboardInterrupt:
        print(f"{_COMMAND}: stopped by SIGINT", file=sys.stderr)
        return 128 + signal.SIGINT
    return 0


def _parser() -> argparse.ArgumentParser:
    default = PrepareSettings()
    parser = argparse.ArgumentParser(
        prog=_COMMAND, description="Prepare raw parallel text for fairseq and print the folder DATA_BIN."
    )
    parser.add_argument("raw", type=Path, metavar="RAW_DIR", help="folder with {train,valid,test}.{de,en}")
    parser.add_argument("--output-dir", type=Path, required=True, help="folder to write to, created if absent")
    parser.add_argument(
        "--vocabulary",
        type=int,
        default=default.vocabulary,
        help="greatest number of subwords of both languages together (default: %(default)s)",
    )
    parser.add_argument(
        "--separate-dictionaries", action="store_true", help="write one dictionary per language (default: one for both)"
    )
    parser.add_argument(
        "--noise",
        type=float,
        default=default.noise,
        help="share of training targets to misalign (default: %(default)s)",
    )
    parser.add_argument(
        "--noise-seed", type=int, default=default.noise_seed, help="seed of the misalignment (default: %(default)s)"
    )
    parser.add_argument(
        "--train-limit",
        type=int,
        default=default.train_limit,
        help="number of training pairs to use, from the first; 0 uses all (default: %(default)s)",
    )
    parser.add_argument(
        "--part",
        type=float,
        default=default.part,
        help="share of the training pairs, from the first, to write also as a set for --train-subset part "
        "(default: %(default)s)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
