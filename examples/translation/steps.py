"""Steps that are done once: what they are recognised by, and when a folder is refused because it holds others."""

from __future__ import annotations

import hashlib
import json
import shlex
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from pathlib import Path

from fairseq_l2t.pairs.parallel_text import BadInput

__all__ = ["Step", "difference", "recorded", "refuse_other_command", "refuse_other_commands"]

_SHOWN_DIFFERENCES = 3


@dataclass(frozen=True)
class Step:
    """A command, and what it takes to run it only when needed.

    ``folder`` gets ``NAME.log`` and, once the command succeeded, ``NAME.done``. ``inputs`` are files whose
    contents decide, with the command, whether a finished step still holds. ``after`` names the steps to wait
    for. ``work`` is a folder the command resumes from by itself; it is emptied when the inputs are not those it was
    started with, and refused when the command is another. ``resume`` is appended to the command when it continues in
    that folder, after ``mend`` was called with it. ``is_result`` is asked with the log of a command that ended with an
    error whether that is a result too, and not to be tried again. ``output`` gets the standard output, if that is
    wanted apart from the log. ``progress`` tells the share done, from 0 to 1. ``late`` gives the rest of the command
    once the steps of ``after`` are done, where what they found decides it.
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
    mend: Callable[[Path], None] = field(default=lambda work: None, compare=False)
    is_result: Callable[[Path], bool] = field(default=lambda log: False, compare=False)

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
        return recorded(self.marker) == self.identity()


def recorded(path: Path) -> dict | None:
    """Return the identity that a marker holds; None where there is none, or one that cannot be read."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    if not isinstance(record, dict) or not isinstance(record.get("command"), list):
        return None
    return {key: record[key] for key in ("command", "inputs") if key in record}


def refuse_other_commands(steps: Sequence[Step]) -> None:
    """Refuse a folder where other work was finished or begun under the name of one of the steps; nothing is touched.

    Raises:
        BadInput: naming the step, the file and how the commands differ.
    """
    holding: set[str] = set()
    waiting = list(steps)
    while ready := [step for step in waiting if holding.issuperset(step.after)]:
        waiting = [step for step in waiting if step not in ready]
        holding.update(step.name for step in ready if step.is_done())
    for step in steps:
        whole = holding.issuperset(step.after)
        # The late part is known only once the steps before have finished: it is looked at again when this one starts.
        refuse_other_command(step, [*step.command, *(step.late() if whole else ())], whole)


def refuse_other_command(step: Step, command: Sequence[str], whole: bool = True) -> None:
    """Refuse to do a step where its work folder holds that of another command.

    What has no work folder is made again in little time from what is kept, and never refused.

    Args:
        step: the step.
        command: what it would run.
        whole: whether that is all of the command; otherwise only its beginning is compared.

    Raises:
        BadInput: naming the step, the file and how the commands differ.
    """
    found = None if step.work is None else _record_of(step)
    if found is None:
        return
    path, record = found
    before = record["command"] if whole else record["command"][: len(command)]
    if before != list(command):
        there = [str(one) for one in (step.work, path) if one.exists()]
        raise BadInput(
            f"step {step.name}: {path} is of another command ({difference(before, command)}); remove "
            f"{' and '.join(there)} to do this step anew, or choose another --output-dir"
        )


def _record_of(step: Step) -> tuple[Path, dict] | None:
    done = recorded(step.marker)
    if done is not None:
        return step.marker, done
    if not step.work.exists():
        return None
    begun = recorded(step.started)
    if begun is None:
        raise BadInput(
            f"step {step.name}: {step.work} exists and {step.started} does not say what made it; "
            "move it away or choose another --output-dir"
        )
    return step.started, begun


def difference(before: Sequence[str], now: Sequence[str]) -> str:
    """Say in a few words how two commands differ."""
    found = []
    for kind, *bounds in SequenceMatcher(None, before, now, autojunk=False).get_opcodes():
        if kind == "equal":
            continue
        there, here = before[bounds[0] : bounds[1]], now[bounds[2] : bounds[3]]
        # A value says nothing without its option.
        if bounds[0] and not all(words[0].startswith("--") for words in (there, here) if words):
            there, here = before[bounds[0] - 1 : bounds[1]], now[bounds[2] - 1 : bounds[3]]
        found.append(f"there {_shown(there)}, here {_shown(here)}")
    more = len(found) - _SHOWN_DIFFERENCES
    return "; ".join(found[:_SHOWN_DIFFERENCES]) + (f"; and {more} more" if more > 0 else "")


def _shown(words: Sequence[str]) -> str:
    return textwrap.shorten(shlex.join(words), 200, placeholder=" ...") or "nothing"


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "missing"
