"""Schemas of values that were read from a file: types and ranges, checked by pydantic, told in one line."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

__all__ = ["Count", "FileValues", "Finite", "Percent", "Sha256", "Share", "one_line", "validated"]

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Percent = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0, le=2**53)]
"""A whole number that float64 holds."""
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

_LONGEST_VALUE = 60
"""Characters shown of a wrong value."""


class FileValues(BaseModel):
    """Values of a file: nothing is converted, no name is unknown."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


T = TypeVar("T", bound=BaseModel)


def validated(schema: type[T], values: Any, name: str = "") -> T:
    """Return ``values`` as an instance of ``schema``.

    Args:
        schema: the names, types and ranges.
        values: as read from JSON.
        name: prefix of the names in the error.

    Raises:
        ValueError: one line with the name, value and allowed values of the first problem, and the number of others.
    """
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        first, *others = error.errors(include_url=False)
        place = ".".join(str(part) for part in ((name, *first["loc"]) if name else first["loc"])) or "values"
        more = f" ({len(others)} more)" if others else ""
        raise ValueError(f"{one_line(place)}: {_problem(first)}{more}") from None


def one_line(value: object, longest: int = _LONGEST_VALUE) -> str:
    """Return a value of a file as text for an error: without line breaks, and not longer than ``longest``."""
    text = " ".join(str(value).split())
    return text if len(text) <= longest else f"{text[:longest]}..."


def _problem(error: Any) -> str:
    if error["type"] == "missing":
        return "missing"
    if error["type"] == "extra_forbidden":
        return "not a known name"
    message = error["msg"]
    return f"{one_line(repr(error['input']))}; {message[:1].lower()}{message[1:]}"
