"""The options page of the documentation, as Markdown, made from the declarations of the options."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping

from fairseq_l2t.classification.options import COMMANDS
from fairseq_l2t.teaching.options.declaration import Declared, declared
from fairseq_l2t.teaching.options.help_text import text_of
from fairseq_l2t.teaching.options.presets import PRESETS, TRANSLATION_PRESETS
from fairseq_l2t.teaching.options.translation_options import TranslationOptions

__all__ = ["main", "options_page"]

_HEAD = """# Options

This page is made from the declarations in `fairseq_l2t/teaching/options/` and `fairseq_l2t/classification/options.py`.
`--help` of each command prints the same.

Every option can also be given in a YAML file, by its name without the leading dashes, with `--config FILE`. The command
line overrides the file. `null` leaves an option to its default. A run writes all its options, with every value in
place, to `options.yaml` in `--save-dir`; that file can be given to `--config`.

A run that is continued with `--resume` must have the options it was started with. Those marked *may change* are free:
they change nothing that an update computes.
"""


def options_page() -> str:
    """Return the page."""
    presets = {name: PRESETS[name] for name in TRANSLATION_PRESETS}
    parts = [_HEAD, *_command("l2t-train-teacher", TranslationOptions, presets)]
    parts.append("`l2t-train-teacher` and `l2t-doctor` also take every option of `fairseq-train`.\n")
    for name, command in COMMANDS.items():
        parts += _command(f"l2t-classify {name}", command.options, command.presets)
    return "\n".join(parts)


def _command(name: str, options: type, presets: Mapping[str, object]) -> Iterator[str]:
    yield f"## {name}\n"
    groups: dict[str, list[Declared]] = {}
    for one in declared(options).values():
        groups.setdefault(one.option.group, []).append(one)
    for group, members in groups.items():
        yield f"### {name}: {group}\n"
        yield from _table(members, presets)


def _table(members: list[Declared], presets: Mapping[str, object]) -> Iterator[str]:
    columns = list(presets) if len(presets) > 1 else []
    titles = [f"default of `{name}`" for name in columns] or ["default"]
    rows = [["option", "what it does", "values", *titles], ["---"] * (3 + len(titles))]
    for one in members:
        found = [getattr(presets[name], one.name, one.default) for name in columns or list(presets)] or [one.default]
        does = one.option.help + (" *(may change)*" if one.option.may_change else "")
        rows.append([f"`{one.flag}`", does, one.allowed, *(_default(one, value) for value in found)])
    yield "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows) + "\n"


def _default(one: Declared, value: object) -> str:
    if one.is_flag:
        return "not given"
    return text_of(one, value) or "must be given"


def main() -> int:
    """Print the page."""
    sys.stdout.write(options_page())
    return 0


if __name__ == "__main__":
    sys.exit(main())
