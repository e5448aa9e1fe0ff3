"""Grid files of classification: which images, students, losses and seeds are compared.

settings         list of {data, label_noise, student}: a table each
seeds            of the students that count
tuning_seeds     of those that choose learning rate and option on dev; they do not count
student          options of `l2t-classify train` that all students share
learning_rates   tried by every loss
teachers         name -> options of `l2t-classify train-teacher` beside those of ``student``
losses           name -> options of `l2t-classify train` to choose from; --teacher-path is a name of ``teachers``
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

__all__ = ["Grid", "GridError", "Setting", "read_grid"]


class GridError(ValueError):
    """A grid file that cannot be used; one line that begins with its path."""


@dataclass(frozen=True)
class Setting:
    """A table: images, share of wrong training labels, network."""

    data: str
    label_noise: float
    student: str

    @property
    def name(self) -> str:
        """The name of its folder."""
        return f"{self.data}.noise{100 * self.label_noise:g}.{self.student}"


@dataclass(frozen=True)
class Grid:
    """A grid file; see the head of this module for the entries."""

    path: Path
    settings: tuple[Setting, ...]
    seeds: tuple[int, ...]
    tuning_seeds: tuple[int, ...]
    student: str
    learning_rates: tuple[float, ...]
    teachers: dict[str, str]
    losses: dict[str, tuple[str, ...]]


def read_grid(path: str | Path) -> Grid:
    """Read and check a grid file.

    Raises:
        GridError: unreadable, or an entry that is missing, unknown or of another type.
    """
    path = Path(path)
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise GridError(f"{path}: {' '.join(str(error).split())}") from error
    expected = set(Grid.__dataclass_fields__) - {"path"}
    if not isinstance(content, dict) or set(content) != expected:
        found = sorted(content) if isinstance(content, dict) else type(content).__name__
        raise GridError(f"{path}: entries {found}; expected {sorted(expected)}")
    try:
        losses = content["losses"].items()
        return Grid(
            path,
            tuple(map(_setting, _list("settings", content["settings"]))),
            tuple(map(_whole, _list("seeds", content["seeds"]))),
            tuple(map(_whole, _list("tuning_seeds", content["tuning_seeds"]))),
            str(content["student"]),
            tuple(map(float, _list("learning_rates", content["learning_rates"]))),
            {str(name): str(options) for name, options in content["teachers"].items()},
            {str(name): tuple(map(str, _list(f"losses: {name}", choices))) for name, choices in losses},
        )
    except (TypeError, ValueError, AttributeError) as error:
        raise GridError(f"{path}: {type(error).__name__}: {error}") from error


def _list(name: str, value: Any) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise ValueError(f"{name}: {value!r}; expected a list that is not empty")
    return value


def _setting(entry: Any) -> Setting:
    names = [field.name for field in fields(Setting)]
    if not isinstance(entry, dict) or sorted(entry) != sorted(names):
        raise ValueError(f"settings: {entry}; expected the entries {', '.join(names)}")
    return Setting(str(entry["data"]), float(entry["label_noise"]), str(entry["student"]))


def _whole(value: Any) -> int:
    if type(value) is not int:
        raise ValueError(f"{value!r}; expected a whole number")
    return value
