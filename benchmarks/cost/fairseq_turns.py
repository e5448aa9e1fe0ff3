"""The whole of ``fairseq-train`` in a process that makes its updates in turns, one turn for each message."""

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
    """A process of fairseq-train ended early."""


class _Turns:
    """Called before `Trainer.train_step`: at the end of a turn it sends the seconds of an update and waits.

    After the warm-up it sends None.

    Args:
        connection: end of a pipe; each message received starts a turn, and its closing ends the process.
        warmup: updates before the first turn.
        updates: updates of a turn.
    """

    def __init__(self, connection, warmup: int, updates: int) -> None:
        self._connection, self._updates = connection, updates
        self._left = warmup
        self._start: float | None = None

    def before_update(self) -> None:
        """Wait if a turn has ended; count the coming update."""
        if self._left == 0:
            self._wait(None if self._start is None else (time.perf_counter() - self._start) / self._updates)
            self._left = self._updates
            self._start = time.perf_counter()
        self._left -= 1

    def _wait(self, spent: float | None) -> None:
        try:
            self._connection.send(spent)
            self._connection.recv()
        except (EOFError, BrokenPipeError, ConnectionResetError):  # the other end is closed
            raise SystemExit(0) from None


def train_in_turns(connection, arguments: list[str], warmup: int, updates: int) -> None:
    """Run ``fairseq-train`` with ``arguments`` on one thread, a turn of ``updates`` for each message received.

    Args:
        connection: end of a pipe. After each turn the mean seconds of an update are sent, None after the warm-up.
        arguments: of the command line; the run must be longer than all turns.
        warmup: updates before the first turn.
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
