"""The options that a resumed run must share with the run it continues."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import fields
from typing import Any

from fairseq_l2t.storage.schema import one_line
from fairseq_l2t.teaching.options.declaration import as_given, declared, flag_of
from fairseq_l2t.teaching.plan import RESOLVED

__all__ = [
    "ResumeError",
    "fixed_options",
    "plain_options",
    "refuse_other_inputs",
    "refuse_other_options",
]

_LONGEST_VALUE = 200
"""Characters shown of an option's value."""

_DIGITS = 12
"""Digits of a fingerprint in a message."""

logger = logging.getLogger(__name__)


class ResumeError(ValueError):
    """A folder that contains a run, or a run with other options; the message is one line that names the option."""


def plain_options(options: Any) -> dict[str, Any]:
    """Return all options by name, JSON-able."""
    values = {field.name: getattr(options, field.name) for field in fields(options)}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def fixed_options(options: Any) -> dict[str, Any]:
    """Return the resolved options that change the result of an update, by name, JSON-able.

    The memory budget changes only which graphs are kept, and so the rounding of some updates.
    """
    free = {name for name, one in declared(type(options)).items() if one.option.may_change}
    if getattr(options, "keep_graphs", False):
        free.discard("memory_budget")
    return {name: value for name, value in plain_options(options).items() if name not in free}


def refuse_other_options(
    then: Mapping[str, Any], now: Mapping[str, Any], given: Collection[str] | None = None, preset: str = ""
) -> None:
    """Refuse to continue a run that was started with other options.

    Args:
        then, now: options by name, from `fixed_options`.
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
    told = "; ".join(
        f"{one_line(flag_of(key))} {_shown(then.get(key))} then, {_shown(now.get(key))} now" for key in changed
    )
    is_of_preset = bool(preset) and not set(changed) <= set(given or ())
    hint = f" (options that are not given have the values of --preset {preset})" if is_of_preset else ""
    raise ResumeError(f"--resume: the run was started with other options: {told}{hint}")


def _shown(value: Any) -> str:
    return one_line(as_given(value), _LONGEST_VALUE)


def refuse_other_inputs(
    then: Mapping[str, str] | None,
    now: Mapping[str, str],
    *,
    option: str = "",
    is_given: bool = False,
    may_differ: Collection[str] = (),
) -> None:
    """Refuse to continue a run with other content of the files that it reads.

    Args:
        then, now: SHA-256 by the name of an input; ``then`` is None in a state of an earlier version, which has none.
        option: name of the option that permits the inputs ``may_differ`` to change; empty: there is none.
        is_given: whether that option is given; the changes are then logged.
        may_differ: names of inputs.

    Raises:
        ResumeError: names each changed input, with its fingerprint then and now.
    """
    if then is None:
        logger.warning("--resume: the run state of an earlier version has no fingerprints; the data were not compared")
        return
    changed = [name for name in {**then, **now} if then.get(name) != now.get(name)]
    refused = [name for name in changed if not (is_given and name in may_differ)]
    told = "; ".join(
        f"{one_line(name)} (SHA-256 {_digits(then.get(name))} then, {_digits(now.get(name))} now)"
        for name in refused or changed
    )
    if refused:
        hint = f"; give {option} to continue with it" if option and set(refused) <= set(may_differ) else ""
        raise ResumeError(f"--resume: the run was started with other content of {told}{hint}")
    if changed:
        logger.warning("%s: the run continues with other content of %s", option, told)


def _digits(fingerprint: str | None) -> str:
    return "none" if fingerprint is None else fingerprint[:_DIGITS]
