"""Values that JSON stores without change."""

from __future__ import annotations

import json
from typing import Any

__all__ = ["require_plain_json"]


def require_plain_json(values: Any, name: str, *, allow_infinity: bool) -> None:
    """Refuse values that JSON loses or changes: tuples, keys other than strings, NaN, objects of other classes.

    Args:
        values: the values.
        name: their name in the error message.
        allow_infinity: whether infinity is accepted, which Python reads and writes beyond the JSON standard.

    Raises:
        ValueError: the values would change.
    """
    try:
        unchanged = json.loads(json.dumps(values, allow_nan=allow_infinity)) == values
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{name}: cannot be written as JSON: {error}") from error
    if not unchanged:
        raise ValueError(
            f"{name}: would be changed by JSON; expected dictionaries with string keys, lists, "
            "strings, numbers (not NaN), booleans and None"
        )
