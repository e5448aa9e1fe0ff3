"""Runs programs of this environment as steps done once: in parallel, with logs and progress lines."""
from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from textfiles import BadInput, write_lines

_SHOWN_LINES = 20
_POLL_SECONDS = 0.5
_UPDATES = re.compile(r'"num_updates": "(\d+)"')


class StepFailed(Exception):
    """A command ended with an error; the message holds the command and the end of its log."""


@dataclass(frozen=True)
class Step:
    """A command, and what it takes to run it only when needed.

    ``folder`` gets ``NAME.log`` and, once the command succeeded, ``NAME.done``. ``inputs`` are files whose
    contents decide, with the command, whether a finished step still holds. ``after`` names the steps to wait
    for. ``work`` is a folder the command resumes from by itself; it is emptied when command or inputs
    are not those it was started with. ``resume`` is appended to the command when it continues in that folder.
    ``output`` gets the standard output, if that is wanted apart from the log. ``progress`` tells the share
    done, from 0 to 1. ``late`` gives the rest of the command once the steps of ``after`` are done, where what
    they found decides it.
    """

    name: str
    command: tuple[str, ...]
    folder: Path
    inputs: tuple[Path, ...] = ()
    after: tuple[str, ...] = ()
    work: Path | None = None
    resume: tuple[str, ...] = ()
    output: Path | None = None
    progress: Callable[[], float] | None = field(default=None, compare=False)
    late: Callable[[], tuple[str, ...]] = field(default=tuple, compare=False)

    @property
    def log(self) -> Path:
        """Where standard output and error go."""
        return self.folder / f"{self.name}.log"

    @property
    def marker(self) -> Path:
        """The file that says the step is done, with which command and inputs."""
        return self.folder / f"{self.name}.done"

    @property
    def started(self) -> Path:
        """The file that says with which command and inputs the step was last started."""
        return self.folder / f"{self.name}.started"

    def identity(self) -> dict:
        """What a finished or interrupted step is recognised by."""
        return {"command": [*self.command, *self.late()], "inputs": [_digest(path) for path in self.inputs]}

    def is_done(self) -> bool:
        """Whether this very command has finished before on the same inputs."""
        return _recorded(self.marker) == self.identity()


def console_script(name: str) -> str:
    """The path of a console script in the environment that runs this program.

    Raises:
        StepFailed: there is none.
    """
    path = Path(sys.executable).parent / name
    if not path.exists():
        raise StepFailed(f"{path}: no such program; install the package into this environment (make install)")
    return str(path)


def run_steps(
    steps: Sequence[Step], jobs: int = 1, threads: int = 1, report_seconds: float = 30.0,
    on_done: Callable[[Step], None] = lambda step: None,
) -> None:
    """Run steps in the given order, ``jobs`` at a time, each with ``threads`` threads; skip finished ones.

    ``on_done`` is called after each step, those that were finished before included.

    Raises:
        StepFailed: a step ended with an error; those still running are stopped.
    """
    waiting, running, done = list(steps), [], set()
    shown = time.monotonic()
    try:
        while waiting or running:
            for step in [step for step in waiting if done.issuperset(step.after)]:
                if step.is_done():
                    print(f"  {step.name}: done before", flush=True)
                    done.add(step.name)
                    on_done(step)
                elif len(running) < jobs:
                    running.append(_Running(step, threads))
                else:
                    continue
                waiting.remove(step)
            for process in [process for process in running if process.has_finished()]:
                print(f"  {process.step.name}: {process.seconds():.0f} s", flush=True)
                running.remove(process)
                done.add(process.step.name)
                on_done(process.step)
            if running and time.monotonic() - shown > report_seconds:
                shown = time.monotonic()
                print("  ... " + "; ".join(process.describe() for process in running), flush=True)
            if running:
                time.sleep(_POLL_SECONDS)
            elif waiting and not any(done.issuperset(step.after) for step in waiting):
                raise StepFailed(f"step {waiting[0].name} waits for unknown steps: {waiting[0].after}")
    finally:
        for process in running:
            process.stop()


def run_program(name: str, work: Callable[[], None]) -> int:
    """Do the work of the script ``name`` and return its exit code; what it raises of its own is told in one line.

    SIGTERM ends it like an exception, so that the programs it has started are ended too.
    """
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    start = time.monotonic()
    try:
        work()
    except (BadInput, StepFailed) as error:
        print(f"{name}: error: {error}", file=sys.stderr)
        return 1
    print(f"wall time: {time.monotonic() - start:.0f} s")
    return 0


def updates_in_log(log: Path, total: int) -> Callable[[], float]:
    """Progress of a fairseq-train run that writes JSON lines to ``log``."""
    def share() -> float:
        found = _UPDATES.findall(log.read_text(encoding="utf-8", errors="replace")) if log.exists() else []
        return int(found[-1]) / total if found else 0.0
    return share


def lines_in_file(path: Path, total: int) -> Callable[[], float]:
    """Progress of a program that writes a line to ``path`` for each of ``total`` rounds."""
    def share() -> float:
        return path.read_bytes().count(b"\n") / total if path.exists() else 0.0
    return share


class _Running:
    """A started step."""

    def __init__(self, step: Step, threads: int) -> None:
        step.folder.mkdir(parents=True, exist_ok=True)
        step.marker.unlink(missing_ok=True)
        self.step, self._start, self._files = step, time.monotonic(), []
        # inputs are made by earlier steps, so they are looked at now, not when the step is described
        self._identity = step.identity()
        continues = self._continues()
        command = (*self._identity["command"], *(step.resume if continues else ()))
        write_lines(step.started, [json.dumps(self._identity)])
        # The log of what is continued holds the beginning of its learning curve.
        log = self._open(step.log, "a" if continues else "w")
        output = log if step.output is None else self._open(step.output)
        log.write(f"$ {shlex.join(command)}\n")
        log.flush()
        environment = dict(os.environ, OMP_NUM_THREADS=str(threads), PYTHONUNBUFFERED="1")
        self._process = subprocess.Popen(command, stdout=output, stderr=log, env=environment)
        # (seconds, share) that the estimate starts from; a continued run tells its share with its first line
        self._origin = None if continues else (0.0, 0.0)

    def _continues(self) -> bool:
        """Whether the work folder holds the beginning of this very run; one of another run is emptied."""
        work = self.step.work
        if work is None or not work.exists():
            return False
        if _recorded(self.step.started) == self._identity:
            return True
        shutil.rmtree(work)
        return False

    def _open(self, path: Path, mode: str = "w") -> IO[str]:
        handle = path.open(mode, encoding="utf-8")
        self._files.append(handle)
        return handle

    def _share(self) -> float:
        return self.step.progress() if self.step.progress else 0.0

    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._start

    def has_finished(self) -> bool:
        """Whether the command has ended well; then the marker is written."""
        code = self._process.poll()
        if code is None:
            return False
        self.stop()
        if code != 0:
            raise StepFailed(_failure(self.step, code))
        write_lines(self.step.marker, [json.dumps(dict(self._identity, seconds=round(self.seconds(), 1)))])
        return True

    def stop(self) -> None:
        """End the command if it still runs, and close its files."""
        if self._process.poll() is None:
            self._process.terminate()
            self._process.wait()
        for handle in self._files:
            handle.close()

    def describe(self) -> str:
        """Name, time so far, and an estimate of the time left from what this start has done."""
        share, elapsed = self._share(), self.seconds()
        if self._origin is None and share:
            self._origin = (elapsed, share)
        left = ""
        if self._origin is not None and share > self._origin[1]:
            pace = (elapsed - self._origin[0]) / (share - self._origin[1])
            left = f", {share:.0%}, about {pace * (1 - share):.0f} s left"
        return f"{self.step.name} {elapsed:.0f} s{left}"


def _recorded(path: Path) -> dict | None:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    if not isinstance(record, dict):
        return None
    return {key: record[key] for key in ("command", "inputs") if key in record}


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "missing"


def _failure(step: Step, code: int) -> str:
    lines = step.log.read_text(encoding="utf-8", errors="replace").splitlines()[-_SHOWN_LINES:]
    return "\n".join([f"step {step.name} ended with exit code {code}", f"$ {shlex.join(step.command)}",
                      f"last lines of {step.log}:", *lines])
