import pytest

from fairseq_l2t.inspection.text_table import columns, fit, text_width


@pytest.mark.parametrize(
    ("text", "width", "expected"),
    [
        ("abc", 5, "abc  "),
        ("abcdef", 5, "abcd…"),
        ("東京都", 6, "東京都"),
        ("東京都", 5, "東京…"),
        ("東京都", 4, "東… "),
        ("e\u0301a", 3, "e\u0301a "),
        ("a\x1b[2Jb", 6, "a?[2Jb"),
        ("", 2, "  "),
    ],
)
def test_fit(text, width, expected):
    assert fit(text, width) == expected
    assert text_width(fit(text, width)) == width


def test_columns_line_up():
    assert columns([["a", "1"], ["東", "2"]], [3, 1]) == ["  a    1", "  東   2"]
