"""Which options a resumed run must share with the run it goes on with."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import fields
from typing import Any

from fairseq_l2t.teaching.options.declaration import declared, flag_of
from fairseq_l2t.teaching.plan import RESOLVED

__all__ = ["ResumeError", "fixed_options", "plain_options", "refuse_other_options"]


class ResumeError(ValueError):
    """A folder that holds a run, or a run of other options; one line that names the option."""


def plain_options(options: Any) -> dict[str, Any]:
    """Return all options by name, JSON-able."""
    values = {field.name: getattr(options, field.name) for field in fields(options)}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def fixed_options(options: Any) -> dict[str, Any]:
    """Return the options that decide what an update computes, by name, JSON-able; resolved values are compared.

    Which graphs are kept, and so the rounding of some updates, depends on the memory budget; nothing else does.
    """
    free = {name for name, one in declared(type(options)).items() if one.option.may_change}
    if getattr(options, "keep_graphs", False):
        free.discard("memory_budget")
    return {name: value for name, value in plain_options(options).items() if name not in free}


def refuse_other_options(
    then: Mapping[str, Any], now: Mapping[str, Any], given: Collection[str] | None = None, preset: str = ""
) -> None:
    """Refuse to go on with a run that was started with other options.

    Args:
        then, now: options by name, those of `fixed_options`.
        given: names of the options that are given now.
        preset: name of the preset that gives the others.

    Raises:
        ResumeError: names each option, its value then and now.
    """
    changed = [key for key in sorted(then.keys() | now.keys()) if then.get(key) != now.get(key)]
    if not changed:
        return
    if given:  # values that follow from others are left out, unless they are all there is
        changed = [key for key in changed if key in given or key not in RESOLVED] or changed
    told = "; ".join(f"{flag_of(key)} {then.get(key)} then, {now.get(key)} now" for key in changed)
    is_of_preset = bool(preset) and not set(changed) <= set(given or ())
    hint = f" (options that are not given have the values of --preset {preset})" if is_of_preset else ""
    raise ResumeError(f"--resume: the run was started with other options: {told}{hint}")
