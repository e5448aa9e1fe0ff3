"""Write the generated German-English corpus: seeded, with its own grammar, and noisy in training if asked.

    python -m toy_corpus.corpus --output-dir out/corpus --noise 0.3

writes {train,valid,test}.{de,en} and ``train.noise.txt``, the numbers (from 1) of the training lines whose
English side belongs to another line. The same seed and options give the same bytes.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from fairseq_l2t.pairs.parallel_text import LANGUAGES, BadInput, misalign, write_lines
from toy_corpus import german
from toy_corpus.english import EnglishWriter
from toy_corpus.grammar import Grammar
from toy_corpus.lexicon import load_lexicon

NOISE_FILE = "train.noise.txt"
_COMMAND = "python -m toy_corpus.corpus"
Pair = tuple[str, str]
# A sentence drawn twice is drawn again. The grammar has many millions: so many misses in a row are a defect.
_MOST_REPEATS = 10_000


@dataclass(frozen=True)
class CorpusSettings:
    """Sizes in sentence pairs, the seed, and the share of training pairs that get a wrong translation."""

    train: int = 8000
    dev: int = 500
    test: int = 500
    seed: int = 1
    noise: float = 0.0

    def check(self) -> None:
        """Refuse sizes below one, and a share of noise outside [0, 1].

        Raises:
            BadInput: naming the option, its value and the range.
        """
        for name in ("train", "dev", "test"):
            if getattr(self, name) < 1:
                raise BadInput(f"--{name}: {getattr(self, name)}, expected at least 1")
        if not 0.0 <= self.noise <= 1.0:
            raise BadInput(f"--noise: {self.noise}, expected a share from 0 to 1")


def draw_pairs(count: int, seed: int) -> list[Pair]:
    """Return ``count`` sentence pairs in which no German and no English sentence occurs twice."""
    rng = Random(seed)
    grammar, writer = Grammar(load_lexicon(), rng), EnglishWriter(rng)
    pairs: list[Pair] = []
    seen: set[str] = set()
    repeats = 0
    while len(pairs) < count:
        meaning = grammar.sentence()
        pair = german.sentence(meaning), writer.sentence(meaning)
        if seen.intersection(pair):
            repeats += 1
            if repeats > _MOST_REPEATS:
                raise RuntimeError(f"the grammar ran dry after {len(pairs)} distinct pairs")
            continue
        repeats = 0
        seen.update(pair)
        pairs.append(pair)
    return pairs


def write_corpus(folder: Path, settings: CorpusSettings) -> list[int]:
    """Write the corpus; return the indices (from 0) of the noisy training lines.

    Test and dev are drawn first, so that they stay the same whatever ``train`` and ``noise`` are.

    Raises:
        BadInput: a setting is out of range.
    """
    settings.check()
    folder.mkdir(parents=True, exist_ok=True)
    pairs = draw_pairs(settings.test + settings.dev + settings.train, settings.seed)
    test, rest = pairs[: settings.test], pairs[settings.test :]
    dev, train = rest[: settings.dev], rest[settings.dev :]
    rng = Random(f"{settings.seed} noise")
    targets, noisy = misalign([target for _, target in train], settings.noise, rng)
    train = [(source, target) for (source, _), target in zip(train, targets, strict=True)]
    for split, chosen in (("train", train), ("valid", dev), ("test", test)):
        for side, language in enumerate(LANGUAGES):
            write_lines(folder / f"{split}.{language}", (pair[side] for pair in chosen))
    write_lines(folder / NOISE_FILE, (str(index + 1) for index in noisy))
    return noisy


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code (2 for invalid input, 128 + SIGINT when interrupted)."""
    default = CorpusSettings()
    parser = argparse.ArgumentParser(prog=_COMMAND, description=__doc__.splitlines()[0])
    parser.add_argument("--output-dir", type=Path, required=True, help="folder to write to, made if missing")
    for name in ("train", "dev", "test"):
        parser.add_argument(f"--{name}", type=int, default=getattr(default, name), help="pairs (default %(default)s)")
    parser.add_argument("--seed", type=int, default=default.seed, help="(default %(default)s)")
    parser.add_argument(
        "--noise",
        type=float,
        default=default.noise,
        help="share of training pairs with a wrong translation (default %(default)s)",
    )
    options = parser.parse_args(arguments)
    settings = CorpusSettings(options.train, options.dev, options.test, options.seed, options.noise)
    try:
        noisy = write_corpus(options.output_dir, settings)
    except (BadInput, OSError) as error:
        parser.error(str(error))
    except KeyboardInterrupt:
        print(f"{_COMMAND}: stopped by SIGINT", file=sys.stderr)
        return 128 + signal.SIGINT
    print(
        f"{options.output_dir}: {settings.train} train ({len(noisy)} noisy), {settings.dev} valid, "
        f"{settings.test} test pairs"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
