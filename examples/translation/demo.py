#!/usr/bin/env python
"""The program of ``make demo``: a generated corpus with noise, a teacher, three students, and their comparison.

python examples/translation/demo.py --output-dir out/demo
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.commands import recipe
from experiments.programs.entry import run_program
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
    parser = argparse.ArgumentParser()
    recipe.add_options(parser)
    options = parser.parse_args(["demo", str(output / "data" / "bin"), "--output-dir", str(output)])
    grid, corpus = recipe.chosen_recipe(options), CorpusSettings(noise=_NOISE)
    noisy = write_corpus(output / "raw", corpus)
    print(
        f"embedded German-English corpus: {corpus.train} training pairs, {len(noisy)} of them with a wrong "
        f"translation, {corpus.dev} dev and {corpus.test} clean test pairs",
        flush=True,
    )
    data_bin = prepare(output / "raw", output / "data", PrepareSettings(vocabulary=grid.corpora["demo"].vocabulary))
    print("training: cross-entropy (ce), label smoothing (ls), and the student of a learned loss (l2t)", flush=True)
    # The noise is in the text already: the name of the folder tells it.
    recipe.run_recipe(grid.model_copy(update={"noise": (_NOISE,)}), options, data_bin)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--output-dir",
        type=Path,
        default=_ROOT / "out" / "demo",
        help="finished steps there are kept (default: out/demo)",
    )
    options = parser.parse_args(arguments)
    return run_program("demo.py", lambda: run_demo(options.output_dir))


if __name__ == "__main__":
    sys.exit(main())
