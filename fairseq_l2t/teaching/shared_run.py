"""What the processes of a run agree on: the state it begins with, and when it stops."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from fairseq_l2t.teaching.options.declaration import OptionError
from fairseq_l2t.teaching.plan import TeachingPlan
from fairseq_l2t.teaching.processes import Message, Processes

__all__ = ["agreed_stop", "refuse_idle_processes", "state_from_first", "state_to_others"]


def refuse_idle_processes(processes: Processes, plan: TeachingPlan) -> None:
    """Refuse processes that no life of a teacher update would be left for.

    Raises:
        OptionError: more processes than lives.
    """
    if processes.size > plan.lives_per_update:
        raise OptionError(
            f"torchrun started {processes.size} processes; expected at most --lives-per-update, which is "
            f"{plan.lives_per_update}: each process lives whole lives"
        )


def state_to_others(processes: Processes, saved: tuple[dict[str, Tensor], dict[str, Any]] | None) -> None:
    """Send the saved state of a resumed run, or None, from the first process."""
    tensors, values = saved or ({}, None)
    processes.from_first(Message(tensors, values))


def state_from_first(processes: Processes) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Return the saved state that the first process sends."""
    message = processes.from_first(None)
    return None if message.values is None else (dict(message.tensors), message.values)


def agreed_stop(processes: Processes, number: int | None) -> int | None:
    """Return the signal that any of the processes received, the same in all of them."""
    numbers = [message.values for message in processes.gather(Message(values=number))]
    return next((one for one in numbers if one is not None), None)
