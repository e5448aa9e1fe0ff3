"""Texts of ``--help`` and of the options page: effect, range and default of an option."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fairseq_l2t.teaching.options.declaration import Declared

__all__ = ["default_of", "help_of", "text_of"]


def help_of(one: Declared, presets: Mapping[str, object]) -> str:
    """Return the effect of the option, its range and its default in each preset."""
    if one.is_flag:
        return one.option.help
    default = default_of(one, presets)
    known = [one.allowed, f"default: {default}" if default else "required"]
    return f"{one.option.help} ({'; '.join(part for part in known if part)})"


def default_of(one: Declared, presets: Mapping[str, object]) -> str:
    """Return the default in words, for each preset if they differ; empty for a required option."""
    found = {name: text_of(one, getattr(preset, one.name, one.default)) for name, preset in presets.items()}
    if len(set(found.values())) > 1:
        return ", ".join(f"{name} {text}" for name, text in found.items())
    return next(iter(found.values()), text_of(one, one.default))


def text_of(one: Declared, value: Any) -> str:
    """Return a value as text for a reader."""
    if value is ...:
        return ""
    if value is None or value == ():
        return one.option.unset or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)
