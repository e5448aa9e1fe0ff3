"""The options of a grid's programs, parsed before any of them starts: one misspelled in the options of the last student
would otherwise be found when hours are gone."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NoReturn

from steps import Step

import fairseq_l2t
from fairseq_l2t.pairs.parallel_text import BadInput

__all__ = ["refuse_bad_options"]

# Their values are not a person's; those of --lr are numbers of the grid.
_OURS = ("--source-lang", "--target-lang", "--save-dir", "--teacher-path", "--lr", "--seed", "--keep-interval-updates")


def refuse_bad_options(grid: Path, steps: Iterable[Step]) -> None:
    """Parse the command lines of all trainings as their programs do.

    What a step gets only later, such as the learning rate of a further seed, is looked at with the step it comes from.

    Args:
        grid: the file they come from.
        steps: with their inputs there: a teacher's data folder is looked at, too.

    Raises:
        BadInput: a program would refuse its options; names the grid and the step.
    """
    parsers: dict[str, Callable[[Sequence[str]], None]] = {}
    seen = set()
    for step in steps:
        program, what = Path(step.command[0]).name, _from_the_grid(step.command)
        if program not in ("fairseq-train", "l2t-train-teacher") or what in seen:
            continue
        seen.add(what)
        parsers = parsers or _parsers()
        try:
            if {"-h", "--help"} & set(step.command):
                raise _Refused("--help: trains nothing")
            parsers[program](step.command[1:])
        except _Refused as error:
            raise BadInput(f"{grid}: {step.name}: {program} refuses its options: {error}") from None


class _Refused(Exception):
    """Why a parser refuses a command line."""


def _from_the_grid(command: Sequence[str]) -> tuple[str, ...]:
    """What a person wrote of a command, for hundreds of trainings that are alike but for folders and numbers."""
    program, _, *options = command
    return (program, *(word for before, word in zip(("", *options), options, strict=False) if before not in _OURS))


def _parsers() -> dict[str, Callable[[Sequence[str]], None]]:
    # fairseq takes seconds to import, which a report or a list of commands need not pay for.
    logging.disable(logging.INFO)  # as it is imported it advises packages that nothing here uses
    try:
        from fairseq import options

        from fairseq_l2t.plugin.run_options import RunOptions
    finally:
        logging.disable(logging.NOTSET)

    def student(arguments: Sequence[str]) -> None:
        try:
            parser = options.get_training_parser()
            parser.error = _refuse
            options.parse_args_and_arch(parser, input_args=_without_our_plugin(arguments))
        except FileNotFoundError as error:  # fairseq's message is the path alone
            raise _Refused(f"--user-dir: {error} not found") from error
        except ImportError as error:
            raise _Refused(f"--user-dir: {error}") from error
        except RuntimeError as error:
            if error.args:
                raise
            raise _Refused("--arch is not given") from error  # fairseq's way to say so

    def teacher(arguments: Sequence[str]) -> None:
        try:
            RunOptions.parse(arguments)
        except ValueError as error:  # as the program's own main does
            raise _Refused(error) from error
        except ImportError as error:
            raise _Refused(f"--user-dir: {error}") from error

    return {"fairseq-train": student, "l2t-train-teacher": teacher}


def _refuse(message: str) -> NoReturn:
    """Stand in for `argparse.ArgumentParser.error`, which prints two hundred lines of usage and ends the program."""
    raise _Refused(message)


def _without_our_plugin(arguments: Sequence[str]) -> list[str]:
    """Drop the ``--user-dir`` of taught students, which is loaded already: fairseq would refuse it."""
    ours = str(Path(fairseq_l2t.__file__).parent)
    return [
        word
        for before, word, after in zip(("", *arguments), arguments, (*arguments[1:], ""), strict=False)
        if (word, after) != ("--user-dir", ours) and (before, word) != ("--user-dir", ours)
    ]
