"""An option parser whose errors are one line."""

from __future__ import annotations

import argparse
from typing import NoReturn

__all__ = ["OneLineParser"]


class OneLineParser(argparse.ArgumentParser):
    """An argument parser that prints errors in one line, without the usage before them."""

    def error(self, message: str) -> NoReturn:
        """Print ``message`` to stderr and exit with code 2."""
        self.exit(2, f"{self.prog}: error: {message}\n")
