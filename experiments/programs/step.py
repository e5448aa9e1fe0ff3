"""A step: one run of a program, what identifies it, and when its folder is refused."""

from __future__ import annotations

import hashlib
import json
import shlex
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fairseq_l2t.pairs.parallel_text import BadInput

__all__ = ["Step", "difference", "recorded", "refuse_other_command", "refuse_other_commands"]

_LONGEST_DIFFERENCE = 300


@dataclass(frozen=True)
class Step:
    """A command, and what is needed to run it once.

    ``NAME.log`` and, after success, ``NAME.done`` are written to ``folder``.

    Args:
        name: unique in a run.
        command: program and arguments.
        folder: of logs and markers.
        inputs: files whose contents, with the command, identify the step; another content means: do it again.
        after: names of the steps to wait for.
        work: a folder from which the command resumes. It is emptied when the inputs have changed, and refused when the
            command is another.
        resume: is appended to the command when it continues in ``work``.
        output: gets the standard output, if it is wanted apart from the log.
        progress: returns the share done, from 0 to 1.
        late: returns the rest of the command, which the steps of ``after`` decide.
        mend: is called with ``work`` before the command resumes there.
        is_result: is asked with the log of a failed command: True if the failure is a result, not to be tried again.
        outcome: returns whether the result is there, asked beside the marker or, where ``by_outcome``, instead of it.
        by_outcome: the step is done when its outcome is there, whatever the marker says.
    """

    name: str
    command: tuple[str, ...]
    folder: Path
    inputs: tuple[Path, ...] = ()
    after: tuple[str, ...] = ()
    work: Path | None = None
    resume: tuple[str, ...] = ()
    output: Path | None = None
    progress: Callable[[], float] = field(default=lambda: 0.0, compare=False)
    late: Callable[[], tuple[str, ...]] = field(default=tuple, compare=False)
    mend: Callable[[Path], None] = field(default=lambda work: None, compare=False)
    is_result: Callable[[Path], bool] = field(default=lambda log: False, compare=False)
    outcome: Callable[[], bool] = field(default=lambda: True, compare=False)
    by_outcome: bool = False

    @property
    def log(self) -> Path:
        """Standard output and error."""
        return self.folder / f"{self.name}.log"

    @property
    def marker(self) -> Path:
        """The file that says that the step is done, with which command and inputs."""
        return self.folder / f"{self.name}.done"

    @property
    def started(self) -> Path:
        """The file that says with which command and inputs the step was last started."""
        return self.folder / f"{self.name}.started"

    def identity(self) -> dict[str, Any]:
        """Return command and digests of the inputs, by which a finished or interrupted step is recognised."""
        return {"command": [*self.command, *self.late()], "inputs": [_digest(path) for path in self.inputs]}

    def is_done(self) -> bool:
        """Whether this very command has finished on the same inputs, and its outcome is there."""
        if self.by_outcome:
            return self.outcome()
        return (found := recorded(self.marker)) is not None and found == self.identity() and self.outcome()


def recorded(path: Path) -> dict[str, Any] | None:
    """Return the identity in a marker; None if there is no marker, or one that is damaged."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    if not isinstance(record, dict) or not isinstance(record.get("command"), list):
        return None
    return {key: record[key] for key in ("command", "inputs") if key in record}


def refuse_other_commands(steps: Sequence[Step]) -> None:
    """Refuse a folder with the work of another command under the name of one of the steps; nothing is changed.

    Raises:
        BadInput: names the step, the file and the difference of the commands.
    """
    done: set[str] = set()
    waiting = list(steps)
    while ready := [step for step in waiting if done.issuperset(step.after)]:
        waiting = [step for step in waiting if step not in ready]
        done.update(step.name for step in ready if step.is_done())
    for step in steps:
        # The late part of a command is known once earlier steps are done; it is compared again when the step starts.
        is_whole = done.issuperset(step.after)
        refuse_other_command(step, [*step.command, *(step.late() if is_whole else ())], is_whole)


def refuse_other_command(step: Step, command: Sequence[str], is_whole: bool = True) -> None:
    """Refuse a step whose work folder holds the work of another command.

    A step without a work folder takes little time and is never refused.

    Args:
        step: the step.
        command: what it would run.
        is_whole: whether that is all of the command; otherwise its beginning is compared.

    Raises:
        BadInput: names the step, the file and the difference of the commands.
    """
    if step.work is None or (found := _identity_of_work(step, step.work)) is None:
        return
    path, record = found
    before = record["command"] if is_whole else record["command"][: len(command)]
    if before != list(command):
        there = " and ".join(str(one) for one in (step.work, path) if one.exists())
        raise BadInput(
            f"step {step.name}: {path} is of another command ({difference(before, command)}); remove {there} to do "
            "this step again, or choose another --output-dir"
        )


def _identity_of_work(step: Step, work: Path) -> tuple[Path, dict[str, Any]] | None:
    if (done := recorded(step.marker)) is not None:
        return step.marker, done
    if not work.exists():
        return None
    if (begun := recorded(step.started)) is None:
        raise BadInput(
            f"step {step.name}: {work} exists, and {step.started} does not say which command made it; move it away or "
            "choose another --output-dir"
        )
    return step.started, begun


def difference(before: Sequence[str], now: Sequence[str]) -> str:
    """Return the options, with their values, that one of two commands has and the other has not."""
    old, new = _options(before), _options(now)
    there, here = [one for one in old if one not in new], [one for one in new if one not in old]
    return f"there {_shown(there or old)}, here {_shown(here or new)}"


def _options(command: Sequence[str]) -> list[str]:
    starts = [place for place, word in enumerate(command) if not place or word.startswith("--")]
    ends = [*starts[1:], len(command)]
    return [shlex.join(command[start:end]) for start, end in zip(starts, ends, strict=True)]


def _shown(options: Sequence[str]) -> str:
    return textwrap.shorten(" ".join(options), _LONGEST_DIFFERENCE, placeholder=" ...") or "nothing"


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "missing"
