"""Display of the student updates of a run: a bar on a terminal, otherwise a line in the log every half a minute."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

__all__ = ["ProgressLines", "StepDisplay", "in_words", "step_display"]

logger = logging.getLogger(__name__)

FIRST_LINE_SECONDS, LINE_SECONDS = 5.0, 30.0
"""Seconds from the start to the first line, and between two later lines."""

_BAR_FORMAT = "{percentage:3.0f}%|{bar}| {desc} [{elapsed}]"


class StepDisplay(Protocol):
    """Shows where a run is."""

    def show(self, share: float, place: str, seconds_left: float | None) -> None:
        """Show the share that is done, in [0, 1], the newest step in words, and the estimated seconds that remain."""


class _Nothing:
    def show(self, share: float, place: str, seconds_left: float | None) -> None:
        """Show nothing."""


class ProgressLines:
    """Lines in the log.

    Args:
        clock: returns seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._next = clock() + FIRST_LINE_SECONDS

    def show(self, share: float, place: str, seconds_left: float | None) -> None:
        """Write a line if one is due."""
        now = self._clock()
        if now >= self._next:
            self._next = now + LINE_SECONDS
            logger.info("progress: %.1f %%, %s%s", 100 * share, place, in_words(seconds_left))


class _Bar:
    def __init__(self, bar: tqdm[Any]) -> None:
        self._bar = bar

    def show(self, share: float, place: str, seconds_left: float | None) -> None:
        """Move the bar; tqdm draws it at most ten times a second."""
        self._bar.set_description_str(f"{place}{in_words(seconds_left)}", refresh=False)
        self._bar.update(100 * share - self._bar.n)


@contextmanager
def step_display(*, bar: bool, lines: bool = True) -> Iterator[StepDisplay]:
    """Yield a bar on stderr if ``bar`` and stderr is a terminal, otherwise lines in the log, or nothing.

    Log lines appear above the bar.
    """
    if not (bar and sys.stderr.isatty()):
        yield ProgressLines() if lines else _Nothing()
        return
    with (
        logging_redirect_tqdm(),
        tqdm(total=100, bar_format=_BAR_FORMAT, dynamic_ncols=True, leave=False, miniters=0) as shown,
    ):
        yield _Bar(shown)


def in_words(seconds: float | None) -> str:
    """Return an estimate as the end of a line: ", about 3 min left"; empty if there is none."""
    if seconds is None:
        return ""
    if seconds < 100:
        return f", about {seconds:.0f} s left"
    return f", about {seconds / 60:.0f} min left" if seconds < 6000 else f", about {seconds / 3600:.1f} h left"
