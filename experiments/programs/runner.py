"""Runs steps: each once, several side by side, with logs and lines of progress."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from experiments.programs.launcher import Launcher, LocalPrograms
from experiments.programs.step import Step, recorded, refuse_other_command, refuse_other_commands
from fairseq_l2t.pairs.parallel_text import write_lines
from fairseq_l2t.pairs.programs import StepFailed

__all__ = ["run_steps"]

_SHOWN_LINES = 20
_POLL_SECONDS = 0.5
_FIRST_REPORT_SECONDS = 6.0
"""A program tells its progress after 5 seconds."""
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
    report_seconds: float = 30.0,
    on_done: Callable[[Step], None] = lambda step: None,
    launcher: Launcher | None = None,
) -> None:
    """Run steps in the given order, ``jobs`` at a time, each with one thread; skip finished ones.

    Args:
        steps: what is run.
        jobs: programs at a time.
        report_seconds: between two lines of progress.
        on_done: is called after each step, those that were finished before included.
        launcher: where programs run; this machine, if not given.

    Raises:
        BadInput: a folder holds the work of another command; before any step starts, where that is known by then.
        StepFailed: a step ended with an error; those that still run are stopped.
    """
    refuse_other_commands(steps)
    launcher = launcher or LocalPrograms()
    waiting: list[Step] = list(steps)
    running: list[_Running] = []
    done: set[str] = set()
    next_report, known = time.monotonic() + min(report_seconds, _FIRST_REPORT_SECONDS), -1
    try:
        while waiting or running:
            # What can start changes when a step ends; to ask whether a step is done may read many files.
            ready = [step for step in waiting if done.issuperset(step.after)] if known != len(done) else []
            known = len(done)
            for step in ready:
                if step.is_done():
                    print(f"  {step.name}: done before", flush=True)
                    done.add(step.name)
                    on_done(step)
                elif len(running) < jobs:
                    running.append(_Running(step, launcher, jobs))
                else:
                    continue
                waiting.remove(step)
            for one in [one for one in running if one.has_finished()]:
                print(f"  {one.step.name}: {one.seconds():.0f} s", flush=True)
                running.remove(one)
                done.add(one.step.name)
                on_done(one.step)
            if running and time.monotonic() > next_report:
                next_report = time.monotonic() + report_seconds
                under_way = "; ".join(one.describe() for one in running)
                print(f"  ... {under_way}; {len(done)} of {len(steps)} steps done", flush=True)
            if running:
                time.sleep(_POLL_SECONDS)
            elif waiting and not any(done.issuperset(step.after) for step in waiting):
                raise StepFailed(f"step {waiting[0].name} waits for unknown steps: {waiting[0].after}")
    except StepFailed:
        if left := [one.step.name for one in running if one.is_alive]:
            # A teacher finishes the update under way, which may take minutes.
            print(f"  a step failed; to be stopped: {', '.join(left)}", flush=True)
        raise
    finally:
        for one in running:
            one.program.stop()


class _Running:
    """A started step."""

    def __init__(self, step: Step, launcher: Launcher, jobs: int) -> None:
        self.step, self._start = step, time.monotonic()
        # Earlier steps make the inputs: they are read now, not when the step is described.
        self._identity = step.identity()
        refuse_other_command(step, self._identity["command"])
        step.folder.mkdir(parents=True, exist_ok=True)
        self._continued = self._continues()
        step.marker.unlink(missing_ok=True)
        command = (*self._identity["command"], *(step.resume if self._continued else ()))
        write_lines(step.started, [json.dumps(self._identity)])
        self._write_command(command)
        # Two teachers with long windows, each with half of the machine for its gradients, would end in its OOM killer.
        environment = {
            **_KEEP_MEMORY,
            "L2T_MEMORY_SHARE": f"{1 / jobs:g}",
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONUNBUFFERED": "1",
        }
        self.program = launcher.start(command, step.log, step.output, environment)
        # (seconds, share) from which the time left is estimated; a continued run tells its share with its first line.
        self._origin = None if self._continued else (0.0, 0.0)
        self._latest = (0.0, 0.0)  # when the share last changed: programs tell theirs every so many updates

    def _continues(self) -> bool:
        """Whether the work folder holds the beginning of this very run; one with other inputs is emptied."""
        step, begun = self.step, recorded(self.step.started)
        if begun is not None and begun != self._identity:
            changed = "inputs have" if begun["command"] == self._identity["command"] else "command has"
            print(f"  {step.name}: again, its {changed} changed", flush=True)
        if step.work is None or not step.work.exists():
            return False
        if begun == self._identity:
            step.mend(step.work)
            return True
        shutil.rmtree(step.work)
        return False

    def _write_command(self, command: Sequence[str]) -> None:
        # The log of a continued run holds the beginning of its learning curve; after a kill it may end in half a line.
        path = self.step.log
        try:
            with path.open("a" if self._continued else "w", encoding="utf-8") as log:
                log.write(f"{_end_of_line(path)}$ {shlex.join(command)}\n")
        except OSError as error:  # the error of a write does not name the file
            raise OSError(error.errno, error.strerror, str(path)) from error

    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._start

    @property
    def is_alive(self) -> bool:
        """Whether the program still runs."""
        return self.program.poll() is None

    def has_finished(self) -> bool:
        """Whether the program has ended, well or in a way that is a result too; then the marker is written."""
        code = self.program.poll()
        if code is None:
            return False
        if code != 0 and not self.step.is_result(self.step.log):
            raise StepFailed(_failure(self.step, code, self._continued))
        write_lines(self.step.marker, [json.dumps(dict(self._identity, seconds=round(self.seconds(), 1)))])
        return True

    def describe(self) -> str:
        """Return name, time so far, and an estimate of the time left from what this start has done."""
        share, elapsed = self.step.progress(), self.seconds()
        if self._origin is None and share:
            self._origin = (elapsed, share)
        if share != self._latest[1]:
            self._latest = (elapsed, share)
        left = ""
        if self._origin is not None and share > self._origin[1]:
            told, _ = self._latest
            pace = (told - self._origin[0]) / (share - self._origin[1])
            left = f", {share:.0%}, about {max(0.0, pace * (1 - share) - (elapsed - told)):.0f} s left"
        return f"{self.step.name} {elapsed:.0f} s{left}"


def _end_of_line(path: Path) -> str:
    with path.open("rb") as file:
        if not file.seek(0, os.SEEK_END):
            return ""
        file.seek(-1, os.SEEK_END)
        return "" if file.read() == b"\n" else "\n"


def _failure(step: Step, code: int, continued: bool) -> str:
    ended = f"ended with exit code {code}"
    if code < 0:
        ended = f"was ended by {signal.Signals(-code).name}"
        if -code == signal.SIGKILL:
            ended += ", as the system does where memory runs out"
    went_on = [f"it went on from {step.work}: if that is damaged, remove it, and the step begins anew"]
    last = step.log.read_text(encoding="utf-8", errors="replace").splitlines()[-_SHOWN_LINES:]
    head = [f"step {step.name} {ended}", f"$ {shlex.join(step.command)}", *(went_on if continued else ())]
    return "\n".join([*head, f"last lines of {step.log}:", *last])
