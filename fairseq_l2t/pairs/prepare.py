#!/usr/bin/env python
"""Raw parallel text to binarised fairseq data: overlap, noise, SentencePiece, fairseq-preprocess.

    python -m fairseq_l2t.pairs.prepare RAW_DIR --output-dir out/multi30k --vocabulary 4000

RAW_DIR holds {train,valid,test}.{de,en}. The output folder gets ``text/`` (what is used of the raw text; the
reference for scoring), ``pieces/`` (encoded), ``spm.model`` and ``bin/``, DATA_BIN of the fairseq programs.
"""

from __future__ import annotations

import argparse
import hashlib
import io
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

import sentencepiece

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
from fairseq_l2t.storage import write_atomically

RECORD = "prepared.json"
PART = "part"
Split = tuple[list[str], list[str]]
_SHOWN_LINES = 20


@dataclass(frozen=True)
class PrepareSettings:
    """``vocabulary`` is for both languages; ``train_limit`` 0 is no limit; ``noise`` is a share of train.

    ``part`` is the share of the training pairs that also stand by themselves, as the set of that name.
    """

    vocabulary: int = 4000
    joined_dictionary: bool = True
    noise: float = 0.0
    noise_seed: int = 1
    train_limit: int = 0
    part: float = 0.0

    def check(self) -> None:
        """Refuse values out of range.

        Raises:
            BadInput: naming the option, its value and the range.
        """
        if self.vocabulary < 1:
            raise BadOption("vocabulary", f"{self.vocabulary}, expected at least 1")
        if self.train_limit < 0:
            raise BadOption("train_limit", f"{self.train_limit}, expected 0 (all) or more")
        for option, share in (("noise", self.noise), ("part", self.part)):
            if not 0.0 <= share <= 1.0:
                raise BadOption(option, f"{share}, expected 0 (none) or a share up to 1")


def prepare(raw: Path, output: Path, settings: PrepareSettings, replace: bool = True) -> Path:
    """Prepare ``raw`` in ``output`` and return DATA_BIN; nothing is done where it stands from the same input.

    Args:
        raw: folder of the text.
        output: folder to write to, made if missing.
        settings: how.
        replace: whether a DATA_BIN of other text or settings is made anew, or refused.

    Raises:
        BadInput: a file is missing, empty or not as long as its partner, a setting is out of range, or the folder
            holds something else.
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
                f"{data_bin}: made with other {', '.join(changed)}, and runs may stand on it; "
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
    encoded = {
        split: tuple([" ".join(line) for line in pieces.encode(side, out_type=str)] for side in sides)
        for split, sides in splits.items()
    }
    _write_splits(_folder(output / "pieces"), encoded)
    _binarise(output / "pieces", data_bin, settings, record)
    return data_bin


def reference_file(data_bin: Path, split: str = "test", language: str = LANGUAGES[1]) -> Path:
    """The untouched target text of a split, which hypotheses are scored against."""
    return data_bin.parent / "text" / f"{split}.{language}"


def _changed(path: Path, record: dict) -> list[str]:
    """What was other than in ``record`` when the folder was made; one that is not ours is never removed."""
    if not path.exists():
        raise BadInput(
            f"{path.parent}: exists and was not made by prepare.py (no {RECORD}); "
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
    """Training pairs without those of valid and test, limited, and misaligned as asked."""
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
        f"{len(pairs) - len(kept)} left out because their source also stands in valid or test",
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
    """A sentence as SentencePiece sees it: two that differ only in spaces or Unicode form are the same."""
    return " ".join(unicodedata.normalize("NFKC", line).split())


def train_pieces(train: Split, vocabulary: int, path: Path) -> sentencepiece.SentencePieceProcessor:
    """Train one unigram model over both sides, write it to ``path`` and return it.

    A single thread and no sampling make it a function of the text alone. ``vocabulary`` is an upper bound on
    small text (``hard_vocab_limit`` off).

    Raises:
        BadInput: the size is too small for the characters of the text.
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


def _binarise(pieces: Path, data_bin: Path, settings: PrepareSettings, record: dict) -> None:
    """Run fairseq-preprocess; DATA_BIN appears whole, with the record in it."""
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
        tail = "\n".join(result.stdout.splitlines()[-_SHOWN_LINES:])
        raise StepFailed(f"exit code {result.returncode} of\n$ {shlex.join(command)}\nlast lines:\n{tail}")
    for path in partial.glob("valid1.*"):  # as fairseq-preprocess names what is no train, valid or test
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
    """The command line."""
    default = PrepareSettings()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("raw", type=Path, metavar="RAW_DIR", help="folder with {train,valid,test}.{de,en}")
    parser.add_argument("--output-dir", type=Path, required=True, help="folder to write to, made if missing")
    parser.add_argument(
        "--vocabulary",
        type=int,
        default=default.vocabulary,
        help="pieces of both languages together (default %(default)s)",
    )
    parser.add_argument("--separate-dictionaries", action="store_true", help="one dictionary a language")
    parser.add_argument(
        "--noise", type=float, default=default.noise, help="share of training targets to misalign (default %(default)s)"
    )
    parser.add_argument("--noise-seed", type=int, default=default.noise_seed, help="(default %(default)s)")
    parser.add_argument(
        "--train-limit",
        type=int,
        default=default.train_limit,
        help="use the first pairs only; 0 uses all (default %(default)s)",
    )
    parser.add_argument(
        "--part",
        type=float,
        default=default.part,
        help="share of the training pairs that also become a set of their own, for --train-subset part "
        "(default %(default)s, which is none)",
    )
    options = parser.parse_args(arguments)
    settings = PrepareSettings(
        options.vocabulary,
        not options.separate_dictionaries,
        options.noise,
        options.noise_seed,
        options.train_limit,
        options.part,
    )
    try:
        data_bin = prepare(options.raw, options.output_dir, settings)
    except (BadInput, StepFailed, OSError) as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        parser.exit(128 + signal.SIGINT, "prepare.py: stopped by SIGINT\n")
    print(data_bin)
    return 0


if __name__ == "__main__":
    sys.exit(main())
