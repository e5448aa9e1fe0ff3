"""The state that an interrupted run resumes from: tensors and values in a folder, and the previous state beside it.

`save_run_state` never overwrites the newest undamaged state: that state is renamed to the previous one before the new
one takes its name. `load_run_state` renames a damaged newest state, so that it never becomes the previous one.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from fairseq_l2t.storage.container import ContainerError, VersionError, open_container, write_container
from fairseq_l2t.storage.json_values import require_plain_json

__all__ = [
    "DAMAGED_NAME",
    "NEWEST_NAME",
    "PREVIOUS_NAME",
    "RUN_STATE_VERSION",
    "RunStateError",
    "StateCheck",
    "has_run_state",
    "load_run_state",
    "save_run_state",
    "tensor_differences",
]

RUN_STATE_VERSION = 1
NEWEST_NAME = "run_state.safetensors"
PREVIOUS_NAME = "run_state_previous.safetensors"
DAMAGED_NAME = "run_state_damaged.safetensors"

_KIND = "run state"
_logger = logging.getLogger(__name__)


StateCheck = Callable[[Mapping[str, Tensor], Mapping[str, Any]], object]
"""(tensors, values) -> None; raises ValueError if they are not a state of the run, and changes nothing."""


class RunStateError(ValueError):
    """A folder whose run states cannot be read; the message is one line that names the files."""


def save_run_state(folder: str | os.PathLike[str], tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
    """Write a state into ``folder`` atomically; the state before it stays as a second file.

    Args:
        folder: an existing folder.
        tensors: by name, of any shape and any dtype from float64 to bool (also bfloat16); dtypes are kept.
        values: JSON-serialisable; infinity is allowed (the initial best measure is minus infinity), NaN is not.

    Raises:
        ValueError: JSON would change ``values``.
        OSError: the state could not be written (path named); the earlier states are unchanged.
    """
    values = dict(values)
    require_plain_json(values, "run state", allow_infinity=True)
    folder = Path(folder)
    write_container(
        folder / NEWEST_NAME,
        _KIND,
        RUN_STATE_VERSION,
        {"values": values},
        tensors,
        keep_previous=folder / PREVIOUS_NAME,
    )


def has_run_state(folder: str | os.PathLike[str]) -> bool:
    """Whether ``folder`` contains a state, whatever its condition."""
    return any(os.path.lexists(Path(folder, name)) for name in (NEWEST_NAME, PREVIOUS_NAME))


def load_run_state(
    folder: str | os.PathLike[str], check: StateCheck = lambda tensors, values: None
) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Return (tensors, values) of the newest undamaged state in ``folder``, or None if there is no state.

    If the newest file is damaged or ``check`` refuses its content, the previous one is read, with a warning that names
    files and sizes, and the damaged file is renamed to `DAMAGED_NAME`.

    Raises:
        RunStateError: all states are damaged, or the newest has another format version.
    """
    newest, previous = Path(folder, NEWEST_NAME), Path(folder, PREVIOUS_NAME)
    present = [path for path in (newest, previous) if os.path.lexists(path)]
    problems = []
    for path in present:
        try:
            state = _read(path, check)
        except VersionError as error:  # not damaged: falling back to the previous state would lose work
            raise RunStateError(str(error)) from error
        except ContainerError as error:
            problems.append(str(error))
            continue
        if problems:
            _logger.warning("%s; resuming from %s (%d bytes)", problems[0], path, path.stat().st_size)
            _set_aside(newest)
        elif path == previous:
            _logger.warning("%s is absent (the run ended during a write); resuming from %s", newest, path)
        return state
    if problems:
        raise RunStateError("no run state to resume from: " + "; ".join(problems))
    return None


def tensor_differences(saved: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> list[str]:
    """Return one line for each tensor of ``expected`` that ``saved`` lacks or has in another shape or dtype."""
    found = []
    for name, tensor in expected.items():
        here = f"{_layout(tensor)} expected"
        if name not in saved:
            found.append(f"tensor {name} is missing, {here}")
        elif _layout(saved[name]) != _layout(tensor):
            found.append(f"tensor {name}: {_layout(saved[name])} saved, {here}")
    return found


def _layout(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def _read(path: Path, check: StateCheck) -> tuple[dict[str, Tensor], dict[str, Any]]:
    with open_container(path, _KIND, RUN_STATE_VERSION) as container:
        tensors, damaged = container.read()
        if damaged:
            raise ContainerError(f"{path}: {'; '.join(damaged)} ({container.size} bytes)")
        values = container.content.get("values")
        if not isinstance(values, dict):
            raise ContainerError(f"{path}: metadata: values {values!r}; expected an object")
        try:
            check(tensors, values)
        except ValueError as error:
            raise ContainerError(f"{path}: {error} ({container.size} bytes)") from error
        return tensors, values


def _set_aside(damaged: Path) -> None:
    """Rename the damaged newest state; the next save would otherwise replace the undamaged previous state by it."""
    try:
        os.replace(damaged, damaged.with_name(DAMAGED_NAME))
    except OSError as error:
        _logger.warning("%s: not renamed: %s", damaged, error.strerror)
