"""fairseq's options, parsed by fairseq's own parser from the arguments that are not ours."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NoReturn

from fairseq import options, utils

from fairseq_l2t.plugin.option_effects import refuse_ignored
from fairseq_l2t.teaching.options.command_line import Given
from fairseq_l2t.teaching.options.config_file import written
from fairseq_l2t.teaching.options.declaration import OptionError, declared, flag_of
from fairseq_l2t.teaching.options.suggestions import similar_to, unrecognized
from fairseq_l2t.teaching.options.teacher_help import HELP_ALL, teacher_help
from fairseq_l2t.teaching.options.translation_options import TranslationOptions

__all__ = ["parse_fairseq_options", "print_help"]

_OWN_FOLDER = str(Path(__file__).resolve().parent.parent)


def parse_fairseq_options(given: Given[TranslationOptions]) -> tuple[argparse.Namespace, dict[str, Any]]:
    """Return all options of fairseq, and the given ones by name, in plain types.

    Among the given ones a flag is true, whatever value fairseq derives from it. Options that teacher training would
    ignore are refused (`plugin.option_effects`).

    Raises:
        OptionError: names the option, its value and the values allowed.
    """
    data = given.from_file[1].get("data") if given.from_file else None
    arguments = [*_without_own_user_dir(given.rest), *([] if data is None else [str(data)])]
    _import_user_dir(arguments)
    try:
        parser = options.get_training_parser()
        parser.set_defaults(criterion="cross_entropy")
        parser.error = _refuse_command_line
        namespace, unknown = options.parse_args_and_arch(parser, input_args=arguments, parse_known=True)
    except RuntimeError as error:
        if error.args:
            raise
        # fairseq's way to say that it was given no architecture
        raise OptionError("--arch: not given; expected an architecture such as transformer_iwslt_de_en") from error
    if unknown and data is not None and unknown[-1] == str(data):
        unknown.pop()  # the command line names another folder, which counts
    _refuse_unknown(unknown, given, {flag for action in parser._actions for flag in action.option_strings})
    defaults = {action.dest: action.default for action in parser._actions}  # before `_given`, which drops them
    found = _given(parser, namespace, arguments)
    refuse_ignored(found, vars(namespace), defaults)
    return namespace, found


def print_help(arguments: Sequence[str]) -> NoReturn:
    """Print our options, with ``--help-all`` fairseq's too, and end the program."""
    print(teacher_help(Path(sys.argv[0]).name))
    if HELP_ALL in arguments:
        print("Options of fairseq-train\n")
        options.get_training_parser().print_help()
    raise SystemExit(0)


def _given(parser: argparse.ArgumentParser, namespace: argparse.Namespace, arguments: Sequence[str]) -> dict[str, Any]:
    """Return the given options, by a parser without defaults."""
    without = argparse.ArgumentParser(add_help=False, allow_abbrev=False, parents=[parser])
    without.set_defaults(**dict.fromkeys(vars(namespace)))
    found, _ = without.parse_known_args(arguments)
    return {
        name: True if isinstance(value, bool) else _plain(value)
        for name, value in vars(found).items()
        if value is not None
    }


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(part) for part in value]
    return value if type(value) in (int, float, str) else str(value)


def _refuse_unknown(unknown: Sequence[str], given: Given[TranslationOptions], of_fairseq: Collection[str]) -> None:
    if not unknown:
        return
    known = [*of_fairseq, *(one.flag for one in declared(TranslationOptions).values())]
    if given.from_file:
        path, names = given.from_file
        for name in names:
            if any(argument.partition("=")[0] == flag_of(name) for argument in unknown):
                hint = similar_to([flag_of(name)], known).replace("--", "")
                raise OptionError(
                    f"--config: {path}: {written(name)}; not an option of l2t-train-teacher or fairseq-train{hint}"
                )
    raise OptionError(unrecognized(unknown, known))


def _import_user_dir(arguments: Sequence[str]) -> None:
    """Import the plug-ins of ``--user-dir``, before fairseq's parser does so without a clear error."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.error = _refuse_command_line  # type: ignore[method-assign]  # argparse's way would end the program
    parser.add_argument("--user-dir")
    folder = parser.parse_known_args(arguments)[0].user_dir
    try:
        utils.import_user_module(argparse.Namespace(user_dir=folder))
    except FileNotFoundError as error:  # fairseq's message is the path alone
        raise OptionError(f"--user-dir: {error} not found; expected a folder of fairseq plugins") from error
    except (ImportError, ValueError) as error:
        # ImportError: the name of the folder is taken; ValueError: fairseq knows a task or model of the same name.
        raise OptionError(
            f"--user-dir: {folder}: {' '.join(str(error).split())}; expected a folder with a name and plugins of its "
            f"own (a copy of fairseq_l2t is not needed: {_OWN_FOLDER} is loaded)"
        ) from error


def _without_own_user_dir(arguments: Sequence[str]) -> list[str]:
    """Drop a ``--user-dir`` that names this package, which is already loaded."""
    kept, skip = [], False
    for position, argument in enumerate(arguments):
        value = arguments[position + 1] if position + 1 < len(arguments) else ""
        if skip:
            skip = False
        elif argument == "--user-dir" and str(Path(value).resolve()) == _OWN_FOLDER:
            skip = True
        elif not argument.startswith("--user-dir=") or str(Path(argument[11:]).resolve()) != _OWN_FOLDER:
            kept.append(argument)
    return kept


def _refuse_command_line(message: str) -> NoReturn:
    """Replace `argparse.ArgumentParser.error`, which prints two hundred lines of usage before the error."""
    # fairseq parses --lr with a lambda that fails on NaN and infinity.
    message = message.replace("invalid <lambda> value", "invalid value")
    if message.endswith(" '???'"):  # fairseq's default of an option that must be given
        message = message.partition(": ")[0].removeprefix("argument ") + ": not given; expected a value"
    raise OptionError(message + ("; expected finite numbers above 0" if "argument --lr:" in message else ""))
