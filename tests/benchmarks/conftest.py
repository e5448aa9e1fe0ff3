import pytest

from benchmarks.tiny import corpus


@pytest.fixture(scope="session")
def data_bin(tmp_path_factory):
    """DATA_BIN of a corpus of 400 training and 60 dev pairs, about 200 symbols."""
    return corpus(tmp_path_factory.getbasetemp())
