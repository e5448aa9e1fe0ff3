#!/usr/bin/env python
"""What ``make demo`` runs: the embedded corpus with noise, the three students, and what came out.

python examples/translation/demo.py --output-dir out/demo
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from commands import run_program
from recipe import run_recipe
from settings import DEMO

from fairseq_l2t.pairs.prepare import PrepareSettings, prepare
from toy_corpus.corpus import CorpusSettings, write_corpus

_ROOT = Path(__file__).resolve().parent.parent.parent
_NOISE = 0.3


def run_demo(output: Path) -> None:
    """Corpus, preparation, teacher and students, report; all under ``output``.

    Raises:
        BadInput: the folder holds something else.
        StepFailed: a program ended with an error.
    """
    corpus = CorpusSettings(noise=_NOISE)
    noisy = write_corpus(output / "raw", corpus)
    print(
        f"embedded German-English corpus: {corpus.train} training pairs, {len(noisy)} of them with a wrong "
        f"translation, {corpus.dev} dev and {corpus.test} clean test pairs",
        flush=True,
    )
    data_bin = prepare(output / "raw", output / "data", PrepareSettings(vocabulary=DEMO.vocabulary))
    print("training: cross-entropy (ce), label smoothing (ls), and the student of a learned loss (l2t)", flush=True)
    run_recipe(data_bin, output, DEMO)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--output-dir",
        type=Path,
        default=_ROOT / "out" / "demo",
        help="what was finished there before is kept (default: out/demo)",
    )
    options = parser.parse_args(arguments)
    return run_program("demo.py", lambda: run_demo(options.output_dir))


if __name__ == "__main__":
    sys.exit(main())
