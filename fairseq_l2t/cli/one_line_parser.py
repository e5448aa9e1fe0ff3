"""An option parser whose errors are one line."""

from __future__ import annotations

import argparse
import sys
from typing import Any, NoReturn

from fairseq_l2t.cli.entry import drop_output
from fairseq_l2t.teaching.options.suggestions import unrecognized

__all__ = ["OneLineParser"]

_UNKNOWN = "unrecognized arguments: "
"""Beginning of argparse's message for arguments that no option takes."""


class OneLineParser(argparse.ArgumentParser):
    """An argument parser that prints errors in one line, without the usage before them."""

    def print_help(self, file: Any = None) -> None:
        """Print the help; unlike argparse, exit with code 1 where it cannot be written."""
        file = sys.stdout if file is None else file
        if file is None or sys.stdout is None:  # closed by whoever started the command
            return
        try:
            file.write(self.format_help())
            sys.stdout.flush()
        except BrokenPipeError:
            self.exit(drop_output())
        except OSError as error:
            drop_output()
            self.exit(1, f"{self.prog}: error: standard output: {error.strerror}\n")

    def error(self, message: str) -> NoReturn:
        """Print ``message`` to stderr and exit with code 2."""
        beginning, _, arguments = message.partition(_UNKNOWN)
        if arguments and not beginning:
            message = unrecognized(arguments.split(), self._option_string_actions)
        self.exit(2, f"{self.prog}: error: {message}\n")
