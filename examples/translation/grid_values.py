"""Plain values of a YAML file, checked one by one, with errors that name the file and the entry."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from fairseq_l2t.pairs.parallel_text import BadInput

__all__ = ["Options", "Values", "load_yaml"]

Options = tuple[str, ...]
# What fairseq's integers hold; for a learning rate, anything below infinity.
_MOST = 2**31 - 1
_EXPONENT = re.compile(r"[-+]?\d+e[-+]?\d+", re.IGNORECASE)


def load_yaml(path: Path) -> Any:
    """Read a file of plain values.

    Raises:
        BadInput: not YAML, or a key stands twice in one mapping.
    """
    try:
        loader = _Loader(path.read_text(encoding="utf-8"))
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise BadInput(f"{path}: {' '.join(str(error).split())}") from None


class _Loader(yaml.SafeLoader):
    """Plain values alone, nothing is executed: PyYAML's safe loader, which of two equal keys would take the second
    without a word."""

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        """Read a mapping.

        Raises:
            ComposerError: a key stands twice in it.
        """
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen:
                where = f"line {key.start_mark.line + 1}: {key.value!r} stands twice in one mapping"
                raise yaml.composer.ComposerError(None, None, where)
            seen.add(key.value)
        return node


class Values:
    """Checks values of the file ``path``. Every method raises BadInput where a value is not what it asks for."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def bad(self, where: str, value: Any, expected: str) -> BadInput:
        """Return the error of a value that is none of what is expected."""
        return BadInput(f"{self._path}: {where}: {value!r}, expected {expected}")

    def mapping(self, value: Any, where: str, known: set[str]) -> dict[str, Any]:
        """Return a mapping that has no keys but the known ones."""
        if not isinstance(value, dict):
            raise self.bad(where, value, f"a mapping with {', '.join(sorted(known))}")
        for key in value:
            if key not in known:
                raise self.bad(f"{where}, key", key, f"one of {', '.join(sorted(known))}")
        return value

    def entries(self, top: dict[str, Any], key: str) -> list[tuple[str, Any]]:
        """Return the entries of a mapping whose keys are names; none where it is not there."""
        value = top.get(key) or {}
        if not isinstance(value, dict):
            raise self.bad(key, value, "a mapping of names")
        for name in value:
            # Names become those of files.
            if not isinstance(name, str) or not name.replace("-", "").replace("_", "").isalnum():
                raise self.bad(f"{key}, name", name, "letters, digits, - and _")
        return list(value.items())

    def several(self, values: dict[str, Any], key: str, default: list | None = None, where: str = "") -> list:
        """Return a list, of at least one value where there is no default."""
        value = values.get(key, default)
        if not isinstance(value, list) or not value and default is None:
            raise self.bad(f"{where}.{key}".lstrip("."), value, "a list of at least one value")
        return value

    def number(self, where: str, value: Any, kind: type, least: float, most: float | None = None) -> Any:
        """Return a number of that kind, int or float, within bounds that belong to it."""
        allowed = (int, float) if kind is float else (int,)
        # Every comparison with NaN is false, so that it is none of the right ones.
        if (
            isinstance(value, bool)
            or not isinstance(value, allowed)
            or not (least <= value <= (_MOST if most is None else most))
        ):
            limit = f"at least {least:g} and at most {_MOST if most is None else most:g}"
            if isinstance(value, str) and _EXPONENT.fullmatch(value):
                limit += "; YAML takes an exponent for a number only after a point, such as 5.0e-4"
            raise self.bad(where, value, f"{'a number' if kind is float else 'a whole number'} of {limit}")
        return kind(value)

    def distinct(self, where: str, values: Sequence, shown: Callable[[Any], str] = str) -> None:
        """See that no two values look alike where they are shown."""
        # Names and folders are made of them: of two that are alike, one would take the other's results for its own.
        if len({shown(value) for value in values}) != len(values):
            raise self.bad(where, list(values), "no value twice, as far as six digits tell")

    def options(self, where: str, value: Any, taken: Mapping[str, str]) -> Options:
        """Return options of a command line, without those of ``taken``, which says of each whose it is."""
        parts = value if isinstance(value, list) and value else [value]
        if not all(isinstance(part, str) for part in parts):
            raise self.bad(where, value, "options as text, or a list of such texts")
        try:
            options = tuple(shlex.split(" ".join(parts)))
        except ValueError as error:
            raise self.bad(where, value, f"options as a shell would read them ({error})") from None
        for option in options:
            # Given again here, it would come last and hold for all runs alike.
            if (name := option.partition("=")[0]) in taken:
                raise self.bad(where, option, f"options without {name}, which is {taken[name]}")
        return options

    def known(self, where: str, value: Any, known: Mapping[str, Any]) -> str:
        """Return a name that is one of the known ones."""
        if not isinstance(value, str) or value not in known:
            raise self.bad(where, value, f"one of {', '.join(known)}")
        return value
