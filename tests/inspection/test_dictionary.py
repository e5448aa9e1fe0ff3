import re

import pytest

from fairseq_l2t.inspection import InspectionError, read_dictionary
from fairseq_l2t.storage import vocabulary_fingerprint
from tests.inspection.files import SYMBOLS, WORDS, write_dictionary


def test_symbols_counts_and_fingerprint(tmp_path):
    dictionary = read_dictionary(write_dictionary(tmp_path / "dict.en.txt"))
    assert dictionary.symbols == tuple(SYMBOLS)
    assert dictionary.counts == (None,) * 4 + tuple(WORDS.values())
    assert dictionary.vocabulary.size == len(SYMBOLS)
    assert dictionary.vocabulary.sha256 == vocabulary_fingerprint(SYMBOLS)


def test_a_symbol_may_contain_a_space_and_be_overwritten(tmp_path):
    path = tmp_path / "dict.txt"
    path.write_text("New York 3\na 2\na 5 #fairseq:overwrite\n")
    dictionary = read_dictionary(path)
    assert dictionary.symbols[4:] == ("New York", "a", "a")
    assert dictionary.counts[4:] == (3, 2, 5)


@pytest.mark.parametrize(
    "text",
    [
        *("a 2\nno-count\n", "a 2\nb many\n", "a 2\n\nb 1\n", "a 2\na 2\n", "a 2\n<pad> 1\n", "a 2\nb --2\n"),
        f"a 2\nb {'1' * 5000}\n",
    ],
)
def test_bad_lines_are_named(tmp_path, text):
    path = tmp_path / "dict.txt"
    path.write_text(text)
    with pytest.raises(InspectionError, match=re.escape(f"--dict {path}, line 2: ")):
        read_dictionary(path)


def test_unreadable(tmp_path):
    (tmp_path / "latin").write_bytes(b"caf\xe9 1\n")
    for name, message in (("absent", "No such file"), (".", "directory"), ("latin", "not UTF-8")):
        with pytest.raises(InspectionError, match=message):
            read_dictionary(tmp_path / name)


def test_same_indices_as_fairseq(tmp_path):
    data = pytest.importorskip("fairseq.data")
    path = write_dictionary(tmp_path / "dict.en.txt")
    theirs = data.Dictionary.load(str(path))
    assert tuple(theirs.symbols) == read_dictionary(path).symbols
