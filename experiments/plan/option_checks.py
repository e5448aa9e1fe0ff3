"""Parses the options of a translation grid before any program starts.

Otherwise one misspelled in the options of the last student would be found after hours.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NoReturn

import fairseq_l2t
from experiments.programs.step import Step
from fairseq_l2t.pairs.parallel_text import BadInput

__all__ = ["refuse_bad_options"]

_Parser = Callable[[Sequence[str]], None]
# Options whose values the plan makes.
_MADE = ("--source-lang", "--target-lang", "--save-dir", "--teacher-path", "--lr", "--seed", "--keep-interval-updates")


def refuse_bad_options(grid: Path, steps: Iterable[Step]) -> None:
    """Parse the command lines of all trainings as their programs do.

    The late part of a step, such as the learning rate of a further seed, is checked with the step it comes from.

    Args:
        grid: the file they come from.
        steps: with their inputs there: a teacher's data folder is read, too.

    Raises:
        BadInput: a program would refuse its options; names the grid and the step.
    """
    parsers: dict[str, _Parser] = {}
    seen = set()
    for step in steps:
        program, written = Path(step.command[0]).name, _from_the_grid(step.command)
        if program not in ("fairseq-train", "l2t-train-teacher") or written in seen:
            continue
        seen.add(written)
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
    """Return what a person wrote of a command: hundreds of trainings are alike but for folders and numbers."""
    program, _, *options = command
    return (program, *(word for before, word in zip(("", *options), options, strict=False) if before not in _MADE))


def _parsers() -> dict[str, _Parser]:
    # fairseq takes seconds to import, which a report or a list of commands need not pay for.
    logging.disable(logging.INFO)  # as it is imported it advises packages that nothing here uses
    try:
        from fairseq import options

        from fairseq_l2t.plugin.teacher_run_options import TeacherRunOptions
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
            TeacherRunOptions.parse(arguments)
        except ValueError as error:  # as the program's own main does
            raise _Refused(error) from error
        except ImportError as error:
            raise _Refused(f"--user-dir: {error}") from error

    return {"fairseq-train": student, "l2t-train-teacher": teacher}


def _refuse(message: str) -> NoReturn:
    """Replace `argparse.ArgumentParser.error`, which prints two hundred lines of usage and ends the program."""
    raise _Refused(message)


def _without_our_plugin(arguments: Sequence[str]) -> list[str]:
    """Drop the ``--user-dir`` of taught students, which is loaded already: fairseq would refuse it."""
    ours = ("--user-dir", str(Path(fairseq_l2t.__file__).parent))
    places = {place for place in range(len(arguments)) if tuple(arguments[place : place + 2]) == ours}
    return [word for place, word in enumerate(arguments) if not {place, place - 1} & places]
