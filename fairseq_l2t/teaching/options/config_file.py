"""Options in YAML files: reading for ``--config``, and writing into the folder of a run."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from fairseq_l2t.storage.atomic import write_atomically
from fairseq_l2t.storage.plain_yaml import PlainYamlError, read_plain_yaml
from fairseq_l2t.teaching.options.declaration import Declared, OptionError, flag_of

__all__ = ["CONFIG_NAME", "arguments_of", "file_values", "naming_file", "read_config", "write_config", "written"]

CONFIG_NAME = "options.yaml"
"""The resolved options of a run, in its folder."""

_NOT_WRITTEN = ("config", "resume", "resume_or_start", "allow_other_data")

_NAMED_OPTION = re.compile(r"(?:argument )?(--[a-z0-9-]+)")
"""The option at the beginning of an error's message, ours or argparse's."""


def read_config(path: str) -> dict[str, Any]:
    """Return the values of a file, by option name in Python's spelling.

    Raises:
        OptionError: no such file, no mapping of names, or a name that is given twice.
    """
    try:
        content = read_plain_yaml(Path(path))
    except OSError as error:
        raise OptionError(f"--config: {path}: {error.strerror}; expected a YAML file") from error
    except PlainYamlError as error:
        raise OptionError(f"--config: {path}: {error}") from error
    content = {} if content is None else content
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise OptionError(f"--config: {path}: expected options by name, such as 'teacher-lr: 0.01'")
    found: dict[str, Any] = {}
    for name, value in content.items():
        key = name.replace("-", "_")
        if key in found:
            raise OptionError(f"--config: {path}: {name} is given twice")
        if isinstance(value, dict):
            raise OptionError(f"--config: {path}: {name}: {value}; expected a single value or a list")
        found[key] = value
    if "config" in found:
        raise OptionError(f"--config: {path}: config; expected a file that does not name another one")
    return found


def written(name: str) -> str:
    """Return an option's name as files have it: ``teacher-lr`` for ``teacher_lr``."""
    return name.replace("_", "-")


@contextmanager
def naming_file(path: str, names: Collection[str], arguments: Sequence[str]) -> Iterator[None]:
    """Name the file in an `OptionError` about a value that comes from it.

    Args:
        path: the file.
        names: options in the file, in Python's spelling.
        arguments: the command line; its values override those of the file.
    """
    try:
        yield
    except OptionError as error:
        named = _NAMED_OPTION.match(str(error))
        given = {argument.partition("=")[0] for argument in arguments}
        if named and named[1] in {flag_of(name) for name in names} - given:
            raise OptionError(f"--config: {path}: {str(error).removeprefix('argument ')}") from error
        raise


def arguments_of(path: str, content: Mapping[str, Any], known: Mapping[str, Declared]) -> list[str]:
    """Return the content of a file as command-line arguments.

    ``null`` selects the default. A flag of fairseq, which is not in ``known``, is added for true and omitted for false.
    ``data``, fairseq's only positional argument, comes last.

    Raises:
        OptionError: a boolean for an option with another type, or the reverse.
    """
    found: list[str] = []
    for name, value in content.items():
        if value is None or (name == "data" and name not in known):
            continue
        one = known.get(name)
        if one is not None and one.is_flag != isinstance(value, bool):
            raise OptionError(f"--config: {path}: {written(name)}: {value}; expected {one.allowed}")
        if isinstance(value, bool):
            found += _flag(name, value, one)
        elif one is not None and (one.is_list or one.option.is_positional):
            found += _several(name, value if isinstance(value, list) else [value], one)
        elif isinstance(value, list) and one is not None:
            found.append(f"{flag_of(name)}=({', '.join(map(str, value))})")
        else:
            found.append(f"{flag_of(name)}={value}")
    return found


def _flag(name: str, value: bool, one: Declared | None) -> list[str]:
    if value:
        return [flag_of(name)]
    return [] if one is None or name.startswith("no_") else [flag_of(f"no_{name}")]


def _several(name: str, values: Iterable[Any], one: Declared) -> list[str]:
    return [str(value) if one.option.is_positional else f"{flag_of(name)}={value}" for value in values]


def file_values(options: Any) -> dict[str, Any]:
    """Return the options in the form of a file: by their command-line names, in plain types."""
    found = {}
    for field in fields(options):
        value = getattr(options, field.name)
        if value is not None and field.name not in _NOT_WRITTEN:
            found[written(field.name)] = list(value) if isinstance(value, tuple) else value
    return found


def write_config(folder: str | os.PathLike[str], values: Mapping[str, Any]) -> None:
    """Write options into the folder of a run, atomically, in the form that `read_config` reads."""
    text = yaml.safe_dump(dict(values), sort_keys=True, allow_unicode=True)
    head = "# The options of this run, every value in place. --config FILE starts another run with them.\n"
    write_atomically(Path(folder) / CONFIG_NAME, [(head + text).encode()])
