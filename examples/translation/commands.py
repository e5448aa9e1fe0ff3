"""Runs programs of this environment as steps done once: in parallel, with logs and progress lines."""

from __future__ import annotations

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
from pathlib import Path
from typing import IO

from steps import Step, recorded, refuse_other_command, refuse_other_commands

from fairseq_l2t.pairs.parallel_text import BadInput, write_lines
from fairseq_l2t.pairs.programs import StepFailed, die_with_parent

_SHOWN_LINES = 20
_POLL_SECONDS = 0.5
_UPDATES = re.compile(r'"num_updates": "(\d+)"')
# glibc hands large blocks back to the system and takes them anew at every update; keeping them saves a seventh of the
# time of a small LSTM's updates (0.20 to 0.17 s) and changes no result.
_KEEP_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**33),
    "MALLOC_TOP_PAD_": str(2**26),
}


def run_steps(
    steps: Sequence[Step],
    jobs: int = 1,
    threads: int = 1,
    report_seconds: float = 30.0,
    on_done: Callable[[Step], None] = lambda step: None,
) -> None:
    """Run steps in the given order, ``jobs`` at a time, each with ``threads`` threads; skip finished ones.

    ``on_done`` is called after each step, those that were finished before included.

    Raises:
        BadInput: a folder holds the work of another command; before any step starts, where that is known by then.
        StepFailed: a step ended with an error; those still running are stopped.
    """
    refuse_other_commands(steps)
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
                    running.append(_Running(step, threads, jobs))
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
    except StepFailed:
        if left := [process.step.name for process in running if process.is_alive]:
            # A teacher finishes the update under way, which may take minutes.
            print(f"  a step failed; to be stopped: {', '.join(left)}", flush=True)
        raise
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
        print(f"wall time: {time.monotonic() - start:.0f} s", flush=True)
    except BrokenPipeError:
        # Whoever read our output is gone. Python would tell a second time, as it ends, that it cannot write there.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except (BadInput, StepFailed) as error:
        print(f"{name}: error: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        where = f"{error.filename}: {error.strerror}" if error.filename is not None else str(error)
        print(f"{name}: error: {where}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"{name}: stopped by SIGINT", file=sys.stderr)
        return 128 + signal.SIGINT
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

    def __init__(self, step: Step, threads: int, jobs: int) -> None:
        self.step, self._start, self._files = step, time.monotonic(), []
        # inputs are made by earlier steps, so they are looked at now, not when the step is described
        self._identity = step.identity()
        refuse_other_command(step, self._identity["command"])
        step.folder.mkdir(parents=True, exist_ok=True)
        self._continued = self._continues()
        step.marker.unlink(missing_ok=True)
        command = (*self._identity["command"], *(step.resume if self._continued else ()))
        write_lines(step.started, [json.dumps(self._identity)])
        log = self._open_log(command)
        output = log if step.output is None else self._open(step.output)
        # Two teachers with long windows, each with half of the machine for its gradients, would end in its OOM killer.
        environment = {
            **_KEEP_MEMORY,
            "L2T_MEMORY_SHARE": f"{1 / jobs:g}",
            **os.environ,
            "OMP_NUM_THREADS": str(threads),
            "PYTHONUNBUFFERED": "1",
        }
        self._process = subprocess.Popen(
            command, stdout=output, stderr=log, env=environment, preexec_fn=die_with_parent()
        )
        # (seconds, share) that the estimate starts from; a continued run tells its share with its first line
        self._origin = None if self._continued else (0.0, 0.0)

    def _continues(self) -> bool:
        """Whether the work folder holds the beginning of this very run; one from other inputs is emptied."""
        step, begun = self.step, recorded(self.step.started)
        if begun is not None and begun != self._identity:
            changed = "inputs have" if begun["command"] == self._identity["command"] else "command has"
            print(f"  {step.name}: anew, its {changed} changed", flush=True)
        if step.work is None or not step.work.exists():
            return False
        if begun == self._identity:
            step.mend(step.work)
            return True
        shutil.rmtree(step.work)
        return False

    def _open_log(self, command: Sequence[str]) -> IO[str]:
        path = self.step.log
        # The log of what is continued holds the beginning of its learning curve.
        log = self._open(path, "a" if self._continued else "w")
        try:
            # What was killed may have left half a line.
            log.write(f"{_end_of_line(path)}$ {shlex.join(command)}\n")
            log.flush()
        except OSError as error:  # those of a write do not say which file
            raise OSError(error.errno, error.strerror, str(path)) from error
        return log

    def _open(self, path: Path, mode: str = "w") -> IO[str]:
        handle = path.open(mode, encoding="utf-8")
        self._files.append(handle)
        return handle

    def _share(self) -> float:
        return self.step.progress() if self.step.progress else 0.0

    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._start

    @property
    def is_alive(self) -> bool:
        """Whether the command still runs."""
        return self._process.poll() is None

    def has_finished(self) -> bool:
        """Whether the command has ended, well or in a way that is a result too; then the marker is written."""
        code = self._process.poll()
        if code is None:
            return False
        self.stop()
        if code != 0 and not self.step.is_result(self.step.log):
            raise StepFailed(_failure(self.step, code, self._continued))
        write_lines(self.step.marker, [json.dumps(dict(self._identity, seconds=round(self.seconds(), 1)))])
        return True

    def stop(self) -> None:
        """End the command if it still runs, and close its files."""
        if self.is_alive:
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


def _end_of_line(path: Path) -> str:
    with path.open("rb") as file:
        if not file.seek(0, os.SEEK_END):
            return ""
        file.seek(-1, os.SEEK_END)
        return "" if file.read() == b"\n" else "\n"


def _failure(step: Step, code: int, continued: bool) -> str:
    lines = step.log.read_text(encoding="utf-8", errors="replace").splitlines()[-_SHOWN_LINES:]
    went_on = [f"it went on from {step.work}: if that is damaged, remove it, and the step begins anew"]
    ended = f"ended with exit code {code}"
    if code < 0:
        ended = f"was ended by {signal.Signals(-code).name}"
        if -code == signal.SIGKILL:
            ended += ", as the system does where memory runs out"
    return "\n".join(
        [
            f"step {step.name} {ended}",
            f"$ {shlex.join(step.command)}",
            *(went_on if continued else ()),
            f"last lines of {step.log}:",
            *lines,
        ]
    )
