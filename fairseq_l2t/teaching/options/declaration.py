"""Declarations of options: fields of pydantic dataclasses, annotated with type, range, help and group.

Parser, help text, range checks, the comparison on ``--resume`` and the options page of the documentation are generated
from these declarations (`teaching.options.command_line`, `teaching.options.comparison`, `cli.options_page`).
"""

from __future__ import annotations

import re
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import ValidationError
from pydantic.fields import FieldInfo

__all__ = ["Declared", "Option", "OptionError", "as_given", "declared", "flag_of", "one_line_errors", "range_of"]

T = TypeVar("T")

_FLAT_LIST = re.compile(r"\[[^][()]+\]")


class OptionError(ValueError):
    """An option that is missing, out of range or not supported; the message names it and the values allowed."""


@dataclass(frozen=True)
class Option:
    """The part of a declaration in addition to type, range and default.

    Args:
        help: effect of the option, without range and default.
        group: heading of ``--help`` and of the options page.
        metavar: the value's name in ``--help``.
        unset: the default in words, if it depends on other options.
        may_change: whether a resumed run may have another value, because it does not change the result of an update.
        is_positional: whether it is given without its name.
        takes_several: whether several values may follow its name.
        expected: the allowed values in words, if type and range do not determine them.
    """

    help: str
    group: str
    metavar: str | None = None
    unset: str = ""
    may_change: bool = False
    is_positional: bool = False
    takes_several: bool = False
    expected: str = ""


@dataclass(frozen=True)
class Declared:
    """One field of an options class.

    Args:
        name: name of the field.
        option: its declaration.
        annotation: its type, without metadata.
        allowed: the allowed values, in words.
        default: the default of the class; `dataclasses.MISSING` if the option is required.
    """

    name: str
    option: Option
    annotation: Any
    allowed: str
    default: Any

    @property
    def flag(self) -> str:
        """Its name on the command line."""
        return self.name if self.option.is_positional else flag_of(self.name)

    @property
    def is_flag(self) -> bool:
        """Whether it takes no value."""
        return self.annotation is bool

    @property
    def is_list(self) -> bool:
        """Whether it takes any number of values."""
        return get_origin(self.annotation) is tuple and get_args(self.annotation)[-1] is Ellipsis

    @property
    def is_pair(self) -> bool:
        """Whether it takes a fixed number of values, written as a tuple."""
        return get_origin(self.annotation) is tuple and not self.is_list


def flag_of(name: str) -> str:
    """Return ``--teacher-lr`` for ``teacher_lr``."""
    return f"--{name.replace('_', '-')}"


def as_given(value: Any) -> str:
    """Return a value as a command line has it: ``0.1,0.2`` for a list, or for the text of one."""
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    text = str(value)
    return text[1:-1].replace(" ", "") if _FLAT_LIST.fullmatch(text) else text


def declared(options: type) -> dict[str, Declared]:
    """Return the declared options of the class, by field name, in order; fields without an `Option` are left out."""
    found = {}
    fields: Mapping[str, FieldInfo] = options.__pydantic_fields__  # type: ignore[attr-defined]  # of a pydantic dataclass
    for name, field in fields.items():
        option = next((part for part in field.metadata if isinstance(part, Option)), None)
        if option is not None:
            annotation = _without_none(field.annotation)
            allowed = option.expected or range_of(annotation, field.metadata)
            default = ... if field.is_required() else field.default
            found[name] = Declared(name, option, annotation, allowed, default)
    return found


def one_line_errors(options: type[T]) -> type[T]:
    """Make a pydantic dataclass raise `OptionError`, in one line, for a value out of range."""
    validated: Callable[..., None] = options.__init__

    @wraps(validated)
    def checked(self: T, /, *values: Any, **named: Any) -> None:
        try:
            validated(self, *values, **named)
        except ValidationError as error:
            raise OptionError(_one_line(options, error)) from None

    options.__init__ = checked  # type: ignore[method-assign, assignment]  # mypy sees the dataclass's own signature
    return options


def _one_line(options: type, error: ValidationError) -> str:
    first = error.errors(include_url=False)[0]
    if first["type"] == "value_error" and str(first["ctx"]["error"]).startswith("--"):
        return str(first["ctx"]["error"])  # it names the option itself
    name = str(first["loc"][0]) if first["loc"] else ""
    field: FieldInfo | None = options.__pydantic_fields__.get(name)  # type: ignore[attr-defined]  # of a pydantic dataclass
    if field is None:
        return f"{flag_of(name)}: {first['msg']}"
    known = declared(options).get(name)
    allowed = known.allowed if known else range_of(_without_none(field.annotation), field.metadata)
    flag = known.flag if known else flag_of(name)
    if first["type"] == "missing":
        return f"{flag}: not given; expected {allowed}"
    return f"{flag}: {first['input']}; expected {allowed}"


def range_of(annotation: Any, metadata: Sequence[Any]) -> str:
    """Return the allowed values in words: "a whole number of at least 1", "one of a, b"."""
    if get_origin(annotation) is Literal:
        return f"one of {', '.join(map(str, get_args(annotation)))}"
    if get_origin(annotation) is tuple:
        return _of_tuple(get_args(annotation))
    if annotation not in (int, float):
        return {bool: "true or false", str: "text"}.get(annotation, str(annotation))
    limits = " and ".join(_limits(metadata))
    is_bounded = " and " in limits
    if annotation is int:
        return f"a whole number{_after(limits)}"
    return f"a {'' if is_bounded else 'finite '}number{_after(limits)}"


def _of_tuple(parts: tuple[Any, ...]) -> str:
    if parts[-1] is Ellipsis:
        return f"any number of values, each {range_of(parts[0], ())}"
    first = parts[0]
    inner = (first.__origin__, _flat(first.__metadata__)) if get_origin(first) is Annotated else (first, ())
    return f"{len(parts)} values in parentheses, each {range_of(*inner)}"


def _flat(metadata: Sequence[Any]) -> list[Any]:
    """Return the constraints; within a tuple pydantic leaves them in its field descriptions."""
    return [part for entry in metadata for part in (entry.metadata if isinstance(entry, FieldInfo) else [entry])]


def _limits(metadata: Sequence[Any]) -> Iterator[str]:
    words = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}
    for name, word in words.items():
        yield from (f"{word} {_plain(getattr(part, name))}" for part in metadata if hasattr(part, name))


def _plain(limit: float) -> str:
    return str(int(limit)) if limit == int(limit) else f"{limit:g}"


def _after(limits: str) -> str:
    if not limits:
        return ""
    return f" of {limits}" if limits.startswith("at") else f" {limits}"


def _without_none(annotation: Any) -> Any:
    if get_origin(annotation) in (Union, types.UnionType):
        rest = [part for part in get_args(annotation) if part is not types.NoneType]
        if len(rest) == 1:
            return rest[0]
    return annotation
