"""Processes of one teacher training, started by torchrun: exchange of results, in the order of ranks.

The processes hold the same teacher and live different lives. They exchange tensors and plain values as safetensors
bytes, never as pickles. Communication is by gloo, also for students on GPUs: only the teacher and its hypergradients
are exchanged, which are small. ``torch.distributed.monitored_barrier`` before each exchange names the process that
does not arrive.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Protocol

import torch
import torch.distributed as dist
from safetensors.torch import load, save
from torch import Tensor

__all__ = ["Message", "OneProcess", "Processes", "TorchrunProcesses", "WorkerError", "started_processes"]

_GRACE_SECONDS = 5.0
"""The other processes wait this much longer than rank 0, which knows who is missing and says it."""


class WorkerError(RuntimeError):
    """A process of the run does not answer; the message names its rank."""


@dataclass(frozen=True)
class Message:
    """What a process tells the others.

    Args:
        tensors: by name, of any shape and dtype; on any device, received on the CPU.
        values: JSON-able.
    """

    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    values: Any = None

    def to_bytes(self) -> bytes:
        """Return the message as the bytes of a safetensors file."""
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.tensors.items()}
        return save(tensors, {"values": json.dumps(self.values)})

    @classmethod
    def from_bytes(cls, data: bytes) -> Message:
        """Return the message of these bytes."""
        # The format: eight bytes with the length of the header, then the header, JSON.
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        return cls(load(data), json.loads(header["__metadata__"]["values"]))


class Processes(Protocol):
    """The processes of a run."""

    rank: int
    """Number of this process, from 0."""
    size: int
    """Number of processes."""
    on_host: int
    """Number of processes on this host, which share its memory."""

    def gather(self, message: Message) -> list[Message]:
        """Return the messages of all processes, in the order of ranks."""

    def from_first(self, message: Message | None) -> Message:
        """Return the message of rank 0; the others give None."""


class OneProcess:
    """A run of one process."""

    rank, size, on_host = 0, 1, 1

    def gather(self, message: Message) -> list[Message]:
        """Return the message."""
        return [message]

    def from_first(self, message: Message | None) -> Message:
        """Return the message."""
        return message or Message()


class TorchrunProcesses:
    """Processes that torchrun started; the default process group is initialised.

    Args:
        timeout: seconds that a process waits for the others.
        on_host: number of processes on this host.
    """

    def __init__(self, timeout: float, on_host: int = 1) -> None:
        self.rank, self.size, self.on_host = dist.get_rank(), dist.get_world_size(), on_host
        self._timeout = timeout

    def gather(self, message: Message) -> list[Message]:
        """Return the messages of all processes, in the order of ranks.

        Raises:
            WorkerError: a process did not arrive within the timeout, or has ended.
        """
        self._wait_for_all()
        own = torch.frombuffer(bytearray(message.to_bytes()), dtype=torch.uint8)
        with self._told():
            sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
            dist.all_gather(sizes, torch.tensor([len(own)]))
            longest = int(max(sizes))
            padded = [torch.zeros(longest, dtype=torch.uint8) for _ in range(self.size)]
            dist.all_gather(padded, torch.cat([own, own.new_zeros(longest - len(own))]))
        pairs = zip(padded, sizes, strict=True)
        return [Message.from_bytes(data[: int(size)].numpy().tobytes()) for data, size in pairs]

    def from_first(self, message: Message | None) -> Message:
        """Return the message of rank 0.

        Raises:
            WorkerError: see `gather`.
        """
        self._wait_for_all()
        data = torch.frombuffer(bytearray((message or Message()).to_bytes()), dtype=torch.uint8)
        with self._told():
            size = torch.tensor([len(data)])
            dist.broadcast(size, 0)
            data = data if self.rank == 0 else torch.zeros(int(size), dtype=torch.uint8)
            dist.broadcast(data, 0)
        return Message.from_bytes(data.numpy().tobytes())

    def _wait_for_all(self) -> None:
        seconds = self._timeout + (_GRACE_SECONDS if self.rank else 0.0)
        with self._told():
            dist.monitored_barrier(timeout=timedelta(seconds=seconds))

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Turn gloo's error into one that names the process that is missing."""
        try:
            yield
        except RuntimeError as error:
            raise WorkerError(self._who_is_missing(str(error))) from error

    def _who_is_missing(self, problem: str) -> str:
        found = re.search(r"\bRank (\d+) (?:failed|successfully reached)", problem)
        if self.rank == 0 and (self.size == 2 or (found and "failed" in found[0])):
            missing = f"process {found[1] if found else 1} of {self.size}"
        elif self.rank:
            missing = "process 0, or one it waits for,"
        else:
            missing = f"one of the processes 1 to {self.size - 1}"
        return (
            f"{missing} has ended or did not answer within --worker-timeout, "
            f"{self._timeout:g} seconds; the files are those of the last teacher update"
        )


@contextmanager
def started_processes(timeout: float, environment: Mapping[str, str] = os.environ) -> Iterator[Processes]:
    """Yield the processes of this run: those that torchrun started, or one.

    Args:
        timeout: seconds that a process waits for the others; the value of ``--worker-timeout``.
        environment: the variables that torchrun sets.

    Raises:
        WorkerError: the processes cannot find each other.
    """
    size = int(environment.get("WORLD_SIZE", "1"))
    if size <= 1:
        yield OneProcess()
        return
    on_host = int(environment.get("LOCAL_WORLD_SIZE", "1"))
    try:
        dist.init_process_group("gloo", timeout=timedelta(seconds=timeout + 2 * _GRACE_SECONDS))
    except (RuntimeError, ValueError) as error:
        raise WorkerError(f"torchrun: the {size} processes cannot find each other: {error}") from error
    if torch.cuda.is_available():
        torch.cuda.set_device(int(environment.get("LOCAL_RANK", "0")) % torch.cuda.device_count())
    try:
        yield TorchrunProcesses(timeout, on_host)
    finally:
        dist.destroy_process_group()
