"""Values that come back from JSON as they went in."""

from __future__ import annotations

import json
from typing import Any

__all__ = ["require_plain_json"]


def require_plain_json(values: Any, name: str, *, allow_infinity: bool) -> None:
    """Refuse what JSON would lose or change: tuples, keys that are no strings, NaN, objects of other classes.

    Raises:
        ValueError: with ``name``, which says what the values are.
    """
    try:
        unchanged = json.loads(json.dumps(values, allow_nan=allow_infinity)) == values
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{name}: not JSON-able: {error}") from error
    if not unchanged:
        raise ValueError(
            f"{name}: would come back changed from JSON; expected dictionaries with string keys, lists, "
            "strings, numbers (not NaN), booleans and None"
        )
