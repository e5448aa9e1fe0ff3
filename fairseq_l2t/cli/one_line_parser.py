"""An option parser whose errors are one line."""

from __future__ import annotations

import argparse
from typing import NoReturn

from fairseq_l2t.teaching.options.suggestions import unrecognized

__all__ = ["OneLineParser"]

_UNKNOWN = "unrecognized arguments: "
"""Beginning of argparse's message for arguments that no option takes."""


class OneLineParser(argparse.ArgumentParser):
    """An argument parser that prints errors in one line, without the usage before them."""

    def error(self, message: str) -> NoReturn:
        """Print ``message`` to stderr and exit with code 2."""
        beginning, _, arguments = message.partition(_UNKNOWN)
        if arguments and not beginning:
            message = unrecognized(arguments.split(), self._option_string_actions)
        self.exit(2, f"{self.prog}: error: {message}\n")
