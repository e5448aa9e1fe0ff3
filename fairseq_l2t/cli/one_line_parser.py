"""The option parser of our commands."""

from __future__ import annotations

import argparse
from typing import NoReturn

__all__ = ["OneLineParser"]


class OneLineParser(argparse.ArgumentParser):
    """Errors in one line: argparse's usage before it takes more lines than what is wrong."""

    def error(self, message: str) -> NoReturn:
        """Print ``message`` on stderr and exit with code 2."""
        self.exit(2, f"{self.prog}: error: {message}\n")
