import pytest

from tests.end_to_end import preloaded
from tests.end_to_end.settings import teacher_command
from toy_corpus.tiny import build_tiny_corpus


@pytest.fixture(scope="session")
def data_bin(tmp_path_factory):
    """DATA_BIN of 400 training, 60 dev and 40 test pairs; only to be read."""
    return build_tiny_corpus(tmp_path_factory.mktemp("corpus"), train=400)


@pytest.fixture(scope="session")
def uninterrupted(data_bin, tmp_path_factory):
    """The working folder of a whole run of l2t-train-teacher; only to be read."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    preloaded.run("l2t-train-teacher", teacher_command(data_bin), folder)
    return folder
