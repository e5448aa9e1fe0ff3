"""Reads grid files: safe YAML, without a key that stands twice, checked by a schema."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from experiments.grid.entries import Entry
from experiments.grid.images import ImageGrid
from experiments.grid.translation import TranslationGrid
from fairseq_l2t.pairs.parallel_text import BadInput
from fairseq_l2t.storage.plain_yaml import PlainYamlError, read_plain_yaml

__all__ = ["load_grid", "load_yaml", "read_entry"]

_Entry = TypeVar("_Entry", bound=Entry)
_EXPONENT = re.compile(r"[-+]?\d+e[-+]?\d+", re.IGNORECASE)
_LONGEST_VALUE = 200
_PLAIN_WORDS = {
    r"Input should be a valid integer.*": "expected a whole number",
    r"Input should be a valid number.*": "expected a number",
    r"Input should be a valid string": "expected text",
    r"Input should be a valid dictionary": "expected a mapping of names",
    r"(Input should be a valid tuple|Tuple should have at least 1 item.*)": "expected a list of at least one value",
    r"Dictionary should have at least (\d+) items?.*": r"expected at least \1 of them",
    r"Input should be greater than or equal to": "expected at least",
    r"Input should be less than or equal to": "expected at most",
    r"(Input|String) should (be )?": "expected ",
}


def load_grid(path: Path) -> TranslationGrid | ImageGrid:
    """Read and check a grid file: one with ``corpora`` is of translation, one with ``settings`` of images.

    Raises:
        BadInput: not YAML, or a value that is refused; names the file, the entry, the value and what is allowed.
    """
    content = load_yaml(path)
    if not isinstance(content, dict) or ("corpora" in content) == ("settings" in content):
        found = sorted(map(str, content)) if isinstance(content, dict) else content
        raise BadInput(f"{path}: {found!r}, expected a mapping with either corpora (translation) or settings (images)")
    if "corpora" in content:
        return read_entry(path, TranslationGrid, content)
    return read_entry(path, ImageGrid, content)


def read_entry(path: Path, kind: type[_Entry], content: Any) -> _Entry:
    """Check the content of a file against a schema.

    Raises:
        BadInput: a value is refused.
    """
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        # Of a misspelled key and the one that is missing for it, the misspelled one helps more.
        first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
        raise BadInput(f"{path}: {_in_one_line(first, kind)}") from None


def load_yaml(path: Path) -> Any:
    """Read a file of plain values.

    Raises:
        BadInput: not YAML, or a key stands twice in one mapping.
    """
    try:
        return read_plain_yaml(path)
    except OSError as error:
        raise BadInput(f"{path}: {error.strerror}") from None
    except PlainYamlError as error:
        raise BadInput(f"{path}: {error}") from None


def _in_one_line(error: ErrorDetails, kind: type[Entry]) -> str:
    """Return "entry: value, expected ..."."""
    places = [str(part) for part in error["loc"] if part != "[key]"]
    where, value = ".".join(places), error["input"]
    shown = repr(sorted(set(value) - {"name"}) if isinstance(value, dict) else value)[:_LONGEST_VALUE]
    if error["type"] in ("extra_forbidden", "missing"):
        *above, key = places
        fields = _model_at(kind, above).model_fields
        entry = ".".join(above) or "the file"
        if error["type"] == "extra_forbidden":
            return f"{entry}: key {key!r}, expected one of {_names(fields)}"
        needed = {name: field for name, field in fields.items() if field.is_required()}
        return f"{where}: missing, expected in {entry}: {_names(needed)}"
    if error["type"] == "value_error":
        reason = str(error["ctx"]["error"])
        return f"{where}: {shown}, {reason}" if places else reason
    if error["type"] == "model_type":
        return f"{where}: {shown}, expected a mapping with {_names(_model_at(kind, places).model_fields)}"
    reason = error["msg"]
    for technical, plain in _PLAIN_WORDS.items():
        reason = re.sub(technical, plain, reason)
    if isinstance(value, str) and _EXPONENT.fullmatch(value):
        reason += "; YAML takes an exponent for a number only after a point, such as 5.0e-4"
    return f"{where}: {shown}, {reason}"


def _names(fields: Iterable[str]) -> str:
    return ", ".join(sorted(set(fields) - {"name"}))


def _model_at(kind: type[Entry], places: list[str]) -> type[Entry]:
    """Return the schema of an entry below ``kind``: that of the fields' types along ``places``."""
    for place in places:
        field = kind.model_fields.get(place)
        if field is not None:
            kind = next(iter(_models_in(field.annotation)), kind)
    return kind


def _models_in(annotation: Any) -> list[type[Entry]]:
    if isinstance(annotation, type) and issubclass(annotation, Entry):
        return [annotation]
    return [model for part in getattr(annotation, "__args__", ()) for model in _models_in(part)]
