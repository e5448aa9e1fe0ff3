"""Which options a resumed run must share with the run it goes on with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from fairseq_l2t.teaching.declaration import declared, flag_of

__all__ = ["ResumeError", "fixed_options", "refuse_other_options"]


class ResumeError(ValueError):
    """A folder that holds a run, or a run of other options; one line that names the option."""


def fixed_options(options: Any) -> dict[str, Any]:
    """Return the options that decide what an update computes, by name, JSON-able; resolved values are compared.

    Which graphs are kept, and so the rounding of some updates, depends on the memory budget; nothing else does.
    """
    free = {name for name, one in declared(type(options)).items() if one.option.may_change}
    if getattr(options, "keep_graphs", False):
        free.discard("memory_budget")
    values = {field.name: getattr(options, field.name) for field in fields(options)}
    return {
        name: list(value) if isinstance(value, tuple) else value for name, value in values.items() if name not in free
    }


def refuse_other_options(then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to go on with a run that was started with other options.

    Raises:
        ResumeError: names each option, its value then and now.
    """
    changed = [
        f"{flag_of(key)} {then.get(key)} then, {now.get(key)} now"
        for key in sorted(then.keys() | now.keys())
        if then.get(key) != now.get(key)
    ]
    if changed:
        raise ResumeError(f"--resume: the run was started with other options: {'; '.join(changed)}")
