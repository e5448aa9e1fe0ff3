"""The parser of the commands that only read files: errors in one line, with the option that was meant."""

import pytest

from fairseq_l2t.cli.one_line_parser import OneLineParser


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("--plot x", "unrecognized arguments: --plot x; did you mean --plots?"),
        ("--nothing-like-it", "unrecognized arguments: --nothing-like-it"),
        ("--plots", "argument --plots: expected one argument"),
    ],
)
def test_errors(capsys, given, message):
    parser = OneLineParser(prog="l2t-tool", allow_abbrev=False)
    parser.add_argument("--plots")
    with pytest.raises(SystemExit) as ended:
        parser.parse_args(given.split())
    assert (ended.value.code, capsys.readouterr().err) == (2, f"l2t-tool: error: {message}\n")
