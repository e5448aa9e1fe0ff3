"""What a declaration gives: ranges in words, and errors in one line that name option, value and values allowed."""

from typing import Annotated, Literal

import pytest
from pydantic import Field
from pydantic.dataclasses import dataclass

from fairseq_l2t.teaching.options.declaration import Option, OptionError, declared, one_line_errors

PART = Annotated[float, Field(ge=0, lt=1)]


@one_line_errors
@dataclass(frozen=True, kw_only=True)
class Options:
    count: Annotated[int, Field(ge=1), Option("a count", "g", "N")] = 2
    rate: Annotated[float, Field(gt=0, allow_inf_nan=False), Option("a rate", "g")] = 0.5
    share: Annotated[float | None, Field(ge=0, le=1), Option("a share", "g")] = None
    kind: Annotated[Literal["a", "b"], Option("a kind", "g")] = "a"
    pair: Annotated[tuple[PART, PART], Option("a pair", "g")] = (0.1, 0.2)
    names: Annotated[tuple[str, ...], Option("names", "g", expected="names")] = ()
    loud: Annotated[bool, Option("a flag", "g", may_change=True)] = False
    place: Annotated[str, Option("a place", "g", expected="a folder")]

    def __post_init__(self) -> None:
        if self.count == 7:
            raise OptionError("--count: 7; expected another number")


def test_ranges_in_words():
    assert {name: one.allowed for name, one in declared(Options).items()} == {
        "count": "a whole number of at least 1",
        "rate": "a finite number above 0",
        "share": "a number of at least 0 and at most 1",
        "kind": "one of a, b",
        "pair": "2 values in parentheses, each a number of at least 0 and below 1",
        "names": "names",
        "loud": "true or false",
        "place": "a folder",
    }


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"count": "0"}, "--count: 0; expected a whole number of at least 1"),
        ({"count": "two"}, "--count: two; expected a whole number of at least 1"),
        ({"rate": "nan"}, "--rate: nan; expected a finite number above 0"),
        ({"share": 1.5}, "--share: 1.5; expected a number of at least 0 and at most 1"),
        ({"kind": "c"}, "--kind: c; expected one of a, b"),
        ({"pair": ("0", "1")}, "--pair: 1; expected 2 values in parentheses, each a number of at least 0 and below 1"),
        ({"count": 7}, "--count: 7; expected another number"),
    ],
)
def test_values_out_of_range(given, message):
    with pytest.raises(OptionError) as raised:
        Options(place="here", **given)
    assert str(raised.value) == message


def test_values_in_range_are_made_from_text():
    made = Options(place="here", count="1", rate="1e-3", share="1", kind="b", pair=("0", "0.5"))
    assert (made.count, made.rate, made.share, made.kind, made.pair) == (1, 0.001, 1.0, "b", (0.0, 0.5))


def test_what_must_be_given():
    with pytest.raises(OptionError, match="^--place: not given; expected a folder$"):
        Options()
