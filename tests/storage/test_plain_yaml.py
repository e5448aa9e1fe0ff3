"""YAML of plain values, for configuration files and grids."""

import pytest

from fairseq_l2t.storage.plain_yaml import PlainYamlError, read_plain_yaml


def content(tmp_path, text):
    path = tmp_path / "file.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_plain_yaml(path)


def test_plain_values(tmp_path):
    text = "lang: no\nflag: true\nrates: [1, 0.5]\nbase: &base {a: 1, b: 2}\nmerged: {<<: *base, a: 3}\n"
    assert content(tmp_path, text) == {
        "lang": "no",
        "flag": True,
        "rates": [1, 0.5],
        "base": {"a": 1, "b": 2},
        "merged": {"a": 3, "b": 2},
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: {c: 1, c: 2}\n", "^line 2: c is given twice$"),
        ("a: b: c\n", "^line 1: mapping values are not allowed here$"),
        ("a: [\n", "^line 2: expected the node content"),
        ("a: !!python/object/apply:os.system [ls]\n", "could not determine a constructor"),
        (b"a: \xff\n", "utf-8"),
    ],
)
def test_refused_in_one_line(tmp_path, text, message):
    with pytest.raises(PlainYamlError, match=message) as refused:
        content(tmp_path, text)
    assert "\n" not in str(refused.value)
