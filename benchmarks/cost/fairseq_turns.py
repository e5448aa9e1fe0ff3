"""``fairseq-train``, whole, in a process that waits for its turn before every so many updates."""

from __future__ import annotations

import logging
import time
import warnings

import torch
from fairseq.trainer import Trainer
from fairseq_cli import train

import fairseq_l2t.plugin  # noqa: F401  task and criterion register themselves
from fairseq_l2t.testing.fairseq_reference import configuration

__all__ = ["TrainingFailed", "train_in_turns"]


class TrainingFailed(RuntimeError):
    """A process of fairseq-train ended before its time."""


class _Turns:
    """Stands before `Trainer.train_step`: at the end of a turn it sends seconds an update and waits for the next.

    After the warm-up it sends None.

    Args:
        connection: end of a pipe; each message received allows a turn, and its closing ends the process.
        warmup: updates before the first turn.
        updates: updates of a turn.
    """

    def __init__(self, connection, warmup: int, updates: int) -> None:
        self._connection, self._updates = connection, updates
        self._left = warmup
        self._start: float | None = None

    def before_update(self) -> None:
        """Wait, if a turn has ended; count the update that comes."""
        if self._left == 0:
            self._wait(None if self._start is None else (time.perf_counter() - self._start) / self._updates)
            self._left = self._updates
            self._start = time.perf_counter()
        self._left -= 1

    def _wait(self, spent: float | None) -> None:
        try:
            self._connection.send(spent)
            self._connection.recv()
        except (EOFError, BrokenPipeError, ConnectionResetError):  # nobody asks any more
            raise SystemExit(0) from None


def train_in_turns(connection, arguments: list[str], warmup: int, updates: int) -> None:
    """Run ``fairseq-train`` with ``arguments`` on one thread, a turn of ``updates`` for each message received.

    Args:
        connection: end of a pipe; the seconds an update took, from the first of a turn to before the first of the
            next, are sent after each turn; None after the warm-up.
        arguments: of the command line; the run must be longer than it will be asked for.
        warmup: updates before the first turn, not waited for.
        updates: updates of a turn.
    """
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    turns, train_step = _Turns(connection, warmup, updates), Trainer.train_step

    def in_turn(trainer, *given, **named):
        turns.before_update()
        return train_step(trainer, *given, **named)

    Trainer.train_step = in_turn  # for the life of this process, which does nothing else
    train.main(configuration(arguments))
