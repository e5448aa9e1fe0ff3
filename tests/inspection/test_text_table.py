import pytest

from fairseq_l2t.inspection.text_table import columns, fit


@pytest.mark.parametrize(
    ("text", "width", "expected"),
    [
        ("abc", 5, "abc"),
        ("abcde", 5, "abcde"),
        ("abcdef", 5, "abcd…"),
        ("東京都", 6, "東京都"),
        ("東京都", 5, "東京…"),
        ("東京都", 4, "東…"),
        ("e\u0301a", 2, "e\u0301a"),
        ("a\x1b[2Jb", 6, "a?[2Jb"),
        ("", 2, ""),
    ],
)
def test_fit(text, width, expected):
    assert fit(text, width) == expected


def test_columns_line_up():
    rows = [["word", "weight"], ["a", "1.50"], ["東京", "-12.00"], ["", ""], ["e\u0301", "007"]]
    assert columns(rows, "lr") == [
        "  word  weight",
        "  a       1.50",
        "  東京  -12.00",
        "",
        "  e\u0301        007",
    ]
