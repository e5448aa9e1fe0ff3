"""Where child programs run: `start`, `poll` and `stop`. A cluster needs another class with these three methods."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Protocol

from fairseq_l2t.pairs.programs import die_with_parent

__all__ = ["Launcher", "LocalPrograms", "Program"]


class Program(Protocol):
    """A program that was started."""

    def poll(self) -> int | None:
        """Return the exit code, minus the signal's number if a signal ended it; None while the program runs."""

    def stop(self) -> None:
        """End the program, if it still runs, and wait for its end."""


class Launcher(Protocol):
    """Starts programs."""

    def start(self, command: Sequence[str], log: Path, output: Path | None, environment: Mapping[str, str]) -> Program:
        """Start a program.

        Args:
            command: program and arguments.
            log: standard error is appended to it, and standard output, unless ``output`` is given.
            output: is replaced by the standard output.
            environment: all environment variables of the program.
        """


class LocalPrograms:
    """Programs on this machine. They end with this process, even when SIGKILL ends it."""

    def start(self, command: Sequence[str], log: Path, output: Path | None, environment: Mapping[str, str]) -> Program:
        """See `Launcher`."""
        with log.open("ab") as errors:
            if output is None:
                return self._start(command, errors, errors, environment)
            with output.open("wb") as lines:
                return self._start(command, lines, errors, environment)

    def _start(
        self, command: Sequence[str], output: IO[bytes], errors: IO[bytes], environment: Mapping[str, str]
    ) -> Program:
        return _LocalProgram(
            subprocess.Popen(command, stdout=output, stderr=errors, env=environment, preexec_fn=die_with_parent())
        )


class _LocalProgram:
    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def poll(self) -> int | None:
        return self._process.poll()

    def stop(self) -> None:
        if self.poll() is None:
            self._process.terminate()
            self._process.wait()
