import os
import subprocess
import sys
from pathlib import Path

import pytest

from toy_corpus.corpus import CorpusSettings, write_corpus
from toy_corpus.tiny import tiny_corpus

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def repository():
    """The folder of the checkout."""
    return REPOSITORY


@pytest.fixture(scope="session")
def run_command():
    """``run_command(args, expect=0, **options)``: run a program, check its exit code, return its result.

    A first argument of "python" is this interpreter; a bare name such as "fairseq-train" is a command of this
    environment. Output is captured as text; ``expect=None`` takes any exit code. PyTorch gets one thread unless
    the environment says otherwise: on models this small, threads wait for each other more than they work.
    """

    def run(args, expect=0, **options):
        program, *rest = [str(argument) for argument in args]
        commands = Path(sys.executable).parent
        if program == "python":
            program = sys.executable
        elif (commands / program).exists():
            program = str(commands / program)
        environment = {"OMP_NUM_THREADS": "1", **os.environ}
        options = {"capture_output": True, "text": True, "timeout": 300, "env": environment, **options}
        result = subprocess.run([program, *rest], **options)
        if expect is not None and result.returncode != expect:
            pytest.fail(
                f"{' '.join([program, *rest])}\nexit code {result.returncode}, expected {expect}\n"
                f"{result.stdout}\n{result.stderr}"
            )
        return result

    return run


@pytest.fixture(scope="session")
def raw_corpus(tmp_path_factory):
    """A small clean raw corpus; only to be read."""
    folder = tmp_path_factory.mktemp("raw")
    write_corpus(folder, CorpusSettings(train=300, dev=40, test=30, seed=1))
    return folder


@pytest.fixture(scope="session")
def data_bin(tmp_path_factory):
    """DATA_BIN of the tiny corpus: 400 training and 60 dev pairs, about 200 symbols; only to be read."""
    return tiny_corpus(tmp_path_factory.getbasetemp())
