"""Signals that stop a run at a point where everything is saved."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["Interrupted", "StopRequest", "stop_requests"]

logger = logging.getLogger(__name__)


class Interrupted(Exception):
    """The run was asked to stop, has saved its state and can be resumed; ``exit_code`` is 128 + signal."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}; --resume continues")
        self.exit_code = 128 + number


class StopRequest:
    """The first signal received, or None."""

    number: int | None = None

    def raise_if_made(self) -> None:
        """Raise `Interrupted` if a signal was received; call it when everything is saved."""
        if self.number is not None:
            raise Interrupted(self.number)


@contextmanager
def stop_requests(when: Callable[[], str]) -> Iterator[StopRequest]:
    """Record the first SIGTERM or SIGINT; the second ends the process at once.

    Args:
        when: returns the point at which the run will stop, for the log: "after this teacher update".
    """
    request = StopRequest()

    def on_signal(number: int, frame: object) -> None:
        if request.number is not None:
            os._exit(128 + number)  # every file is written atomically, so whatever is there is whole
        request.number = number
        logger.warning("%s: stopping %s; a second signal stops at once", signal.Signals(number).name, when())

    before = {number: signal.signal(number, on_signal) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
