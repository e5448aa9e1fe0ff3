#!/usr/bin/env python
"""The program of ``make demo``: a generated corpus with noise, a teacher, three students, and their comparison.

python examples/translation/demo.py --output-dir out/demo
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.commands.recipe import run_recipe
from experiments.grid.recipe import load_recipe
from experiments.plan.recipe import RecipePlan
from experiments.programs.entry import run_program
from fairseq_l2t.pairs.prepare import PrepareSettings, prepare
from toy_corpus.corpus import CorpusSettings, write_corpus

_ROOT = Path(__file__).resolve().parent.parent.parent
_NOISE, _JOBS = 0.3, 2


def run_demo(output: Path) -> None:
    """Corpus, preparation, teacher and students, report; all under ``output``.

    Raises:
        BadInput: the folder holds something else.
        StepFailed: a program ended with an error.
    """
    corpus, recipe = CorpusSettings(noise=_NOISE), load_recipe("demo")
    noisy = write_corpus(output / "raw", corpus)
    print(
        f"embedded German-English corpus: {corpus.train} training pairs, {len(noisy)} of them with a wrong "
        f"translation, {corpus.dev} dev and {corpus.test} clean test pairs",
        flush=True,
    )
    data_bin = prepare(output / "raw", output / "data", PrepareSettings(vocabulary=recipe.vocabulary))
    print("training: cross-entropy (ce), label smoothing (ls), and the student of a learned loss (l2t)", flush=True)
    run_recipe(RecipePlan(data_bin, output, recipe), _JOBS)


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
