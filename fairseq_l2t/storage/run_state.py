"""What an interrupted run needs to go on: tensors and values in a folder, with the state before kept beside.

`save_run_state` never overwrites the newest whole state: it becomes the previous one in the step that puts
the new one in its place, and a damaged one that `load_run_state` meets is set aside before it could be taken
for a whole one.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
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
    "load_run_state",
    "save_run_state",
]

RUN_STATE_VERSION = 1
NEWEST_NAME = "run_state.safetensors"
PREVIOUS_NAME = "run_state_previous.safetensors"
DAMAGED_NAME = "run_state_damaged.safetensors"

_KIND = "run state"
_logger = logging.getLogger(__name__)


class RunStateError(ValueError):
    """A folder whose run states cannot be used; one line that names the files."""


def save_run_state(folder: str | os.PathLike[str], tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
    """Write a state into ``folder``, atomically; the one before stays as a second file.

    Args:
        folder: an existing folder.
        tensors: by name, of any shape, in any dtype of float64 to bool (bfloat16 too); dtypes are kept.
        values: JSON-able; infinity is allowed (the best measure so far starts there), NaN is not.

    Raises:
        ValueError: ``values`` would not come back as they are.
        OSError: not written (path named); the states of before are intact.
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


def load_run_state(folder: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Return (tensors, values) of the newest whole state in ``folder``, or None where there is none.

    Where the newest file is damaged the previous one is taken, with a warning that names files and sizes; the
    damaged file is renamed to `DAMAGED_NAME`.

    Raises:
        RunStateError: there are files, and none is whole; or the newest was written by another version of the
            format.
    """
    newest, previous = Path(folder, NEWEST_NAME), Path(folder, PREVIOUS_NAME)
    present = [path for path in (newest, previous) if os.path.lexists(path)]
    problems = []
    for path in present:
        try:
            state = _read(path)
        except VersionError as error:  # a whole file: falling back behind it would throw work away
            raise RunStateError(str(error)) from error
        except ContainerError as error:
            problems.append(str(error))
            continue
        if problems:
            _logger.warning("%s; going on from %s (%d bytes)", problems[0], path, path.stat().st_size)
            _set_aside(newest)
        elif path == previous:
            _logger.warning("%s is absent (stopped inside a write); going on from %s", newest, path)
        return state
    if problems:
        raise RunStateError("no run state to resume from: " + "; ".join(problems))
    return None


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    with open_container(path, _KIND, RUN_STATE_VERSION) as container:
        tensors, damaged = container.read()
        if damaged:
            raise ContainerError(f"{path}: {'; '.join(damaged)} ({container.size} bytes)")
        values = container.content.get("values")
        if not isinstance(values, dict):
            raise ContainerError(f"{path}: metadata: values {values!r}; expected an object")
        return tensors, values


def _set_aside(damaged: Path) -> None:
    """Rename the damaged newest state, lest the next save make it the previous one, over the whole one."""
    try:
        os.replace(damaged, damaged.with_name(DAMAGED_NAME))
    except OSError as error:
        _logger.warning("%s: not renamed: %s", damaged, error.strerror)
