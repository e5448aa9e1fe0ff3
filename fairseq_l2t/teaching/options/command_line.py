"""Options from a command line and from YAML files.

pydantic-settings builds the parser from the declarations of an options class (`teaching.options.declaration`); the
class itself checks types and ranges. A file is converted to arguments, which are placed before those of the command
line, so that the command line overrides them.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields
from typing import Any, Generic, NoReturn, TypeVar

from pydantic import Field, create_model
from pydantic_settings import BaseSettings, CliPositionalArg, CliSettingsSource, CliSubCommand

from fairseq_l2t.teaching.options.config_file import arguments_of, naming_file, read_config, written
from fairseq_l2t.teaching.options.declaration import Declared, OptionError, declared
from fairseq_l2t.teaching.options.help_text import help_of
from fairseq_l2t.teaching.options.suggestions import similar_to, unrecognized

__all__ = ["Command", "Given", "OptionParser", "parse_command", "parse_options"]

T = TypeVar("T")


@dataclass(frozen=True)
class Given(Generic[T]):
    """A parsed command line.

    Args:
        options: with the defaults of a preset, their ranges checked; not yet resolved (`teaching.plan.resolve`).
        names: names of the options that are given, on the command line or in a file.
        rest: arguments of other parsers, those from a file first.
        from_file: the file, and its options that belong to other parsers.
    """

    options: T
    names: frozenset[str]
    rest: list[str]
    from_file: tuple[str, dict[str, Any]] | None = None

    def naming_file(self, arguments: Sequence[str]) -> AbstractContextManager[None]:
        """Return a context that names the file in errors about its values; ``arguments``: the command line."""
        if self.from_file is None:
            return nullcontext()
        path, others = self.from_file
        return naming_file(path, {*self.names, *others}, arguments)


@dataclass(frozen=True)
class Command:
    """A subcommand: its options class, its help text, and by name the presets that give its defaults."""

    options: type
    help: str
    presets: Mapping[str, object]


class OptionParser(argparse.ArgumentParser):
    """A parser that raises its errors; argparse would print the usage and end the program."""

    def error(self, message: str) -> NoReturn:
        """Raise `OptionError`."""
        raise OptionError(message)


def parse_options(options: type[T], arguments: Sequence[str], presets: Mapping[str, object], default: str) -> Given[T]:
    """Parse the options of a class; leave all other arguments to another parser.

    Args:
        options: the class.
        arguments: the command line, without the program's name.
        presets: instances that give the defaults, by the values of its field ``preset``.
        default: name of the preset if none is given.

    Raises:
        OptionError: names the option or the file, the value and the values allowed.
    """
    parser = options_parser(options, presets)
    values, rest = parser.parse_known_args(list(arguments))
    if vars(values).get("config") is None:
        return _given(options, presets, default, values, rest, None)
    path, known = values.config, declared(options)
    content = read_config(path)
    ours = {name: value for name, value in content.items() if name in known}
    others = {name: value for name, value in content.items() if name not in known}
    with naming_file(path, ours, arguments):
        values, rest = parser.parse_known_args([*arguments_of(path, ours, known), *arguments])
        return _given(options, presets, default, values, [*arguments_of(path, others, {}), *rest], (path, others))


def _given(
    options: type[T],
    presets: Mapping[str, object],
    default: str,
    values: argparse.Namespace,
    rest: list[str],
    from_file: tuple[str, dict[str, Any]] | None,
) -> Given[T]:
    found = vars(values)
    preset = presets.get(str(found.get("preset", default)), presets[default])
    return Given(_filled(options, preset, found), frozenset(found), rest, from_file)


def parse_command(
    program: str, description: str, commands: Mapping[str, Command], arguments: Sequence[str]
) -> tuple[str, Given[Any]]:
    """Parse a command line that begins with a subcommand; return its name and its options.

    Raises:
        OptionError: names the option or the file, the value and the values allowed.
        SystemExit: ``--help`` was asked for.
    """
    parser = OptionParser(prog=program, description=description, allow_abbrev=False)
    models = {name: create_model(name, **_definitions(one.options)) for name, one in commands.items()}
    definitions = {
        name: (CliSubCommand[models[name]], Field(description=one.help))  # type: ignore[valid-type, misc]  # made at run time
        for name, one in commands.items()
    }
    known_of_all = {
        f"{name}.{key}": (known, one.presets)
        for name, one in commands.items()
        for key, known in declared(one.options).items()
    }
    _fill(parser, definitions, known_of_all)
    found, rest = parser.parse_known_args(list(arguments))
    name, values = _of_subcommand(found)
    command = commands[name]
    known = declared(command.options)
    if rest:
        raise OptionError(unrecognized(rest, [one.flag for one in known.values()]))
    preset = next(iter(command.presets.values()), None)
    if values.get("config") is None:
        return name, Given(_filled(command.options, preset, values), frozenset(values), [])
    path = str(values["config"])
    content = read_config(path)
    for other in sorted(content.keys() - known.keys()):
        hint = similar_to([written(other)], [written(one) for one in known])
        raise OptionError(f"--config: {path}: {written(other)}; not an option of {program} {name}{hint}")
    with naming_file(path, content, arguments):
        _, values = _of_subcommand(parser.parse_args([name, *arguments_of(path, content, known), *arguments[1:]]))
        return name, Given(_filled(command.options, preset, values), frozenset(values), [], (path, {}))


def options_parser(options: type, presets: Mapping[str, object], program: str | None = None) -> OptionParser:
    """Return the parser of a class, without ``--help``."""
    parser = OptionParser(prog=program, add_help=False, allow_abbrev=False, usage=argparse.SUPPRESS)
    known = {name: (one, presets) for name, one in declared(options).items()}
    _fill(parser, _definitions(options), known)
    return parser


def _fill(
    parser: OptionParser, definitions: Mapping[str, Any], known: Mapping[str, tuple[Declared, Mapping[str, object]]]
) -> None:
    """Add the arguments of a model with these fields, by pydantic-settings, with the texts of their declarations."""
    CliSettingsSource(
        create_model("CommandLine", __base__=BaseSettings, **definitions),
        root_parser=parser,
        add_argument_method=_ArgumentMaker(known),
        cli_kebab_case=True,
        cli_implicit_flags=True,
    )


def _definitions(options: type) -> dict[str, Any]:
    """Return the fields of a model of a command line's texts; the options class converts the texts to values."""
    definitions: dict[str, Any] = {}
    for name, one in declared(options).items():
        if one.option.is_positional:
            kind: Any = CliPositionalArg[list[str]] if one.is_list else CliPositionalArg[str]
            definitions[name] = (kind, ...)
        elif one.is_flag:
            definitions[name] = (bool, False)
        else:
            definitions[name] = (list[str], []) if one.is_list else (str, "")
    return definitions


class _ArgumentMaker:
    """Adds an argument in the group, with the help text and metavar of its declaration."""

    def __init__(self, known: Mapping[str, tuple[Declared, Mapping[str, object]]]) -> None:
        self._known = known
        self._groups: dict[tuple[int, str], Any] = {}

    def __call__(self, parser: argparse.ArgumentParser, *names: str, **settings: Any) -> argparse.Action:
        one, presets = self._known[settings.get("dest", names[0])]
        settings["help"] = help_of(one, presets).replace("%", "%%")
        if one.option.is_positional:
            settings["metavar"] = one.option.metavar
        elif one.is_flag:
            if one.name.startswith("no_"):
                settings["action"] = "store_true"
        else:
            settings["metavar"] = one.option.metavar or "NAME"
            if one.option.takes_several:
                settings.update(action="extend", nargs="+")
        title = one.option.group
        key = (id(parser), title)
        if key not in self._groups:
            self._groups[key] = parser.add_argument_group(title)
        action: argparse.Action = self._groups[key].add_argument(*names, **settings)
        return action


def _of_subcommand(values: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    found = dict(vars(values))
    name = found.pop(":subcommand")
    if name is None:
        raise OptionError("no command given; --help lists them")
    return name, {key.partition(".")[2]: value for key, value in found.items()}


def _filled(options: type[T], preset: object, given: Mapping[str, Any]) -> T:
    """Return the options: the given value, otherwise the preset's, otherwise the default of the class."""
    known = declared(options)
    defaults = {}
    if preset is not None:
        own = {field.name for field in fields(preset)}  # type: ignore[arg-type]  # an instance of an options class
        defaults = {name: getattr(preset, name) for name in known if name in own}
    return options(**{**defaults, **{name: _value(known[name], text) for name, text in given.items()}})


def _value(one: Declared, text: Any) -> Any:
    if one.is_list:
        return tuple(text)
    if one.is_pair and text.startswith("(") and text.endswith(")"):
        return tuple(part.strip() for part in text[1:-1].split(","))
    return text
