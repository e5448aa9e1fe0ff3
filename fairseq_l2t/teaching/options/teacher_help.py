"""``--help`` of the commands that take our options and fairseq's: ours first, fairseq's on request."""

from __future__ import annotations

from collections.abc import Collection

from fairseq_l2t.teaching.options.command_line import options_parser
from fairseq_l2t.teaching.options.presets import PRESETS, TRANSLATION_PRESETS
from fairseq_l2t.teaching.options.translation_options import TranslationOptions

__all__ = ["HELP_ALL", "asks_for_help", "teacher_help"]

HELP_ALL = "--help-all"
"""The option that prints fairseq's options too."""

_HEAD = """usage: {program} DATA_BIN [option ...]

DATA_BIN is a folder that fairseq-preprocess has written. The options below describe the teacher and its training. The
student (model, data, optimizer, schedule, log) is described by the options of fairseq-train, such as --arch,
--optimizer, --lr, --max-tokens, --seed and --save-dir; {all} prints them too. --version prints the version.
"""


def asks_for_help(arguments: Collection[str]) -> bool:
    """Whether a command line asks for help of either kind."""
    return bool({"-h", "--help", HELP_ALL} & set(arguments))


def teacher_help(program: str) -> str:
    """Return the help text of ``program`` with our options alone; it does not import fairseq."""
    presets = {name: PRESETS[name] for name in TRANSLATION_PRESETS}
    return f"{_HEAD.format(program=program, all=HELP_ALL)}\n{options_parser(TranslationOptions, presets).format_help()}"
