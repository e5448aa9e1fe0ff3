"""YAML files of plain values: no objects, no name that is given twice, and only true and false as booleans."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

__all__ = ["PlainYamlError", "read_plain_yaml"]

_BOOL = "tag:yaml.org,2002:bool"


class PlainYamlError(ValueError):
    """A file that is not YAML of plain values; the message is one line that names the line, not the path."""


class _PlainLoader(yaml.SafeLoader):
    """PyYAML's safe loader, which would take the second of two equal names, and the language code ``no`` as false."""

    def compose_mapping_node(self, anchor: Any) -> Any:
        """Return a mapping; a name that is given twice is an error, one that a merged mapping (``<<``) has is not."""
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for name, _ in node.value:
            if isinstance(name, yaml.ScalarNode):
                if name.value in seen:
                    raise yaml.composer.ComposerError(None, None, f"{name.value} is given twice", name.start_mark)
                seen.add(name.value)
        return node


_PlainLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != _BOOL]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_PlainLoader.add_implicit_resolver(_BOOL, re.compile("^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF"))


def read_plain_yaml(path: Path) -> Any:
    """Return the content of a file.

    Raises:
        PlainYamlError: not UTF-8, not YAML, an object, or a name that is given twice.
        OSError: the file cannot be read (path named).
    """
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_PlainLoader)  # a SafeLoader: it builds no objects
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise PlainYamlError(_first_line(error)) from error


def _first_line(error: Exception) -> str:
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    return f"line {mark.line + 1}: {problem}" if mark is not None else str(problem)
