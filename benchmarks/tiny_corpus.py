"""A tiny prepared corpus for tests, made by the code of ``examples/translation``."""

import sys
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parent.parent / "examples" / "translation"
# The examples are scripts that import each other by their plain names, as Python lets them when one is run.
if str(EXAMPLES) not in sys.path:
    sys.path.append(str(EXAMPLES))

from corpus import CorpusSettings, write_corpus  # noqa: E402
from prepare import PrepareSettings, prepare  # noqa: E402


def build_tiny_corpus(folder, train=400, dev=60, test=40, vocabulary=200, seed=1):
    """Write, encode and binarise a small embedded corpus under ``folder``; return its DATA_BIN as a Path."""
    folder = Path(folder)
    write_corpus(folder / "raw", CorpusSettings(train=train, dev=dev, test=test, seed=seed))
    return prepare(folder / "raw", folder / "data", PrepareSettings(vocabulary=vocabulary))
