import pytest

from toy_corpus.tiny import tiny_corpus


@pytest.fixture(scope="session")
def data_bin(tmp_path_factory):
    """DATA_BIN of a corpus of 400 training and 60 dev pairs, about 200 symbols."""
    return tiny_corpus(tmp_path_factory.getbasetemp())
