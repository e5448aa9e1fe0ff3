"""Types of the entries of a grid file: what each value may be."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

__all__ = [
    "CountFromZero",
    "Entry",
    "Name",
    "Names",
    "Options",
    "Penalties",
    "PositiveCount",
    "Rates",
    "Seeds",
    "Share",
    "Shares",
    "distinct",
    "entries_with_names",
    "reserved",
]

_Value = TypeVar("_Value")
_LARGEST_INTEGER = 2**31 - 1  # what fairseq's integers hold


class Entry(BaseModel):
    """A mapping of a grid file: no unknown keys, and no value of another type than is declared."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def distinct(shown: Callable[[Any], str] = str) -> AfterValidator:
    """Refuse two values that look alike once ``shown``: names of files are made of them."""

    def check(values: tuple[_Value, ...]) -> tuple[_Value, ...]:
        if len({shown(value) for value in values}) != len(values):
            raise ValueError("expected no value twice, as far as six digits tell")
        return values

    return AfterValidator(check)


def reserved(options: tuple[str, ...], owners: Mapping[str, str]) -> tuple[str, ...]:
    """Refuse options that the grid or the runner sets; ``owners`` says where.

    Given again, such an option would come last and hold for all runs alike.

    Raises:
        ValueError: one of them is among ``options``.
    """
    for option in options:
        if (name := option.partition("=")[0]) in owners:
            raise ValueError(f"expected options without {name}, which is {owners[name]}")
    return options


def entries_with_names(entries: Any) -> Any:
    """Tell each entry of a mapping its own key, as ``name``."""
    if not isinstance(entries, dict):
        return entries  # refused by its type
    if any(isinstance(entry, dict) and "name" in entry for entry in entries.values()):
        raise ValueError("expected entries without `name`, which is the key of the entry")
    return {name: {**entry, "name": name} if isinstance(entry, dict) else entry for name, entry in entries.items()}


def _command_line(value: Any) -> tuple[str, ...]:
    parts = value if isinstance(value, list) and value else [value]
    if not all(isinstance(part, str) for part in parts):
        raise ValueError("expected options as text, or a list of such texts")
    try:
        return tuple(shlex.split(" ".join(parts)))
    except ValueError as error:
        raise ValueError(f"expected options as a shell reads them ({error})") from None


def _file_name(value: str) -> str:
    if not value.replace("-", "").replace("_", "").isalnum():
        raise ValueError("expected letters, digits, - and _")
    return value


def _percent(share: float) -> str:
    return f"{100 * share:g}"


# A list in YAML becomes a tuple; `strict` is for what is inside.
_LIST = Field(strict=False, min_length=1)
Name = Annotated[str, AfterValidator(_file_name)]
Options = Annotated[tuple[str, ...], BeforeValidator(_command_line)]
PositiveCount = Annotated[int, Field(ge=1, le=_LARGEST_INTEGER)]
CountFromZero = Annotated[int, Field(ge=0, le=_LARGEST_INTEGER)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
_Rate = Annotated[float, Field(ge=1e-12, le=_LARGEST_INTEGER)]
_Penalty = Annotated[float, Field(ge=0.0, le=_LARGEST_INTEGER)]
Names = Annotated[tuple[Name, ...], _LIST, distinct()]
Seeds = Annotated[tuple[PositiveCount, ...], _LIST, distinct()]
Rates = Annotated[tuple[_Rate, ...], _LIST, distinct("{:g}".format)]
Penalties = Annotated[tuple[_Penalty, ...], _LIST, distinct("{:g}".format)]
Shares = Annotated[tuple[Share, ...], _LIST, distinct(_percent)]
