"""A checkpoint of stock fairseq made by its own commands, and the other Pythons of this machine."""

import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest

TINY_TRANSFORMER = [
    *("--arch", "transformer", "--encoder-layers", "1", "--decoder-layers", "1"),
    *("--encoder-embed-dim", "16", "--decoder-embed-dim", "16"),
    *("--encoder-ffn-embed-dim", "16", "--decoder-ffn-embed-dim", "16"),
    *("--encoder-attention-heads", "2", "--decoder-attention-heads", "2"),
]
TRAINING = [
    *("--task", "translation", "--max-tokens", "200", "--optimizer", "adam", "--lr", "1e-3"),
    *("--eval-bleu", "--eval-bleu-detok", "space", "--log-format", "simple", "--cpu"),
    *("--eval-bleu-args", '{"beam": 1, "max_len_b": 10}', "--num-workers", "0"),
]


@pytest.fixture(scope="session")
def binarised_corpus(tmp_path_factory, run_command):
    """60 training pairs of single letters, target reversed and in capitals, through fairseq-preprocess."""
    folder = tmp_path_factory.mktemp("corpus")
    letters = random.Random(1)
    for split, pairs in (("train", 60), ("valid", 8), ("test", 8)):
        lines = [letters.choices("abcdefgh", k=letters.randint(2, 7)) for _ in range(pairs)]
        (folder / f"{split}.de").write_text("".join(" ".join(line) + "\n" for line in lines))
        (folder / f"{split}.en").write_text("".join(" ".join(line[::-1]).upper() + "\n" for line in lines))
    prefixes = [f"--{split}pref={folder / split}" for split in ("train", "valid", "test")]
    run_command(["fairseq-preprocess", "-s", "de", "-t", "en", *prefixes, "--destdir", folder / "bin"])
    return folder / "bin"


@pytest.fixture(scope="session")
def trained(tmp_path_factory, run_command, binarised_corpus):
    """Folder of a Transformer that fairseq-train trained for three updates, with --eval-bleu."""
    folder = tmp_path_factory.mktemp("trained")
    run_command(
        ["fairseq-train", binarised_corpus, "--save-dir", folder, "--max-update", "3"]
        + ["--tensorboard-logdir", folder / "tensorboard", *TINY_TRANSFORMER, *TRAINING]
    )
    return folder


@pytest.fixture(params=["3.11", "3.12"])
def any_python(request):
    """Path of an interpreter of each supported version; skipped where this machine has none."""
    return _interpreter(request.param) or pytest.skip(f"no working python{request.param} on this machine")


def _interpreter(version):
    """A ``python3.x`` on PATH or installed by pyenv, whose shims on PATH may refuse to start."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    candidates = [shutil.which(f"python{version}"), *sorted(pyenv.glob(f"versions/{version}*/bin/python"))]
    for candidate in filter(None, candidates):
        question = [str(candidate), "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
        answer = subprocess.run(question, capture_output=True, text=True)
        if answer.stdout.strip() == version:
            return str(candidate)
    return None
