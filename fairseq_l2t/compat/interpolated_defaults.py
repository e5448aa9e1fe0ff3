"""Options whose default is the value of another option, which fairseq's parser loses.

Versions: fairseq 0.12.2. ``--lr-scheduler polynomial_decay --max-update N`` without ``--total-num-update``, and
``--tokenizer moses`` without its languages, end in a traceback: the parser's None replaces the reference to the other
option, and None is no value of theirs.
Without it fails: tests/compat/test_interpolated_defaults.py::test_the_default_is_the_other_option.

This file is loaded by path, before the package may be imported.
"""

import argparse
import functools
from types import ModuleType
from typing import Any, get_args

_MARK = "fairseq_l2t_keeps_interpolations"


def patch_overrides(utils: ModuleType) -> None:
    """Leave out options that were not given and refer to another one. ``utils`` is ``fairseq.dataclass.utils``."""
    original = utils._override_attr
    if hasattr(original, _MARK):
        return

    @functools.wraps(original)
    def override_attributes(sub_node: str, data_class: Any, args: argparse.Namespace) -> Any:
        fields = getattr(data_class, "__dataclass_fields__", {}) if args is not None else {}
        lost = {name for name, field in fields.items() if name in args and _is_lost(field, getattr(args, name))}
        if lost:
            args = argparse.Namespace(**{name: value for name, value in vars(args).items() if name not in lost})
        return original(sub_node, data_class, args)

    setattr(override_attributes, _MARK, True)
    utils._override_attr = override_attributes  # type: ignore[attr-defined]  # replaces a function of the module


def _is_lost(field: Any, value: Any) -> bool:
    """Whether ``value`` is None, the default is a reference, and the type has no None."""
    refers = isinstance(field.default, str) and field.default.startswith("${")
    return value is None and refers and type(None) not in get_args(field.type)
