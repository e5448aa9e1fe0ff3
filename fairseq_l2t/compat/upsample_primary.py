"""Training data in several parts with the default ``--upsample-primary``, -1.

Versions: fairseq 0.12.2, where fairseq-train combines ``train``, ``train1``, ... and repeats the first part
``--upsample-primary`` times. The default of other tasks is 1; that of ``translation`` is -1, with which such training
ends in ``ValueError: negative dimensions are not allowed``.
Without it fails: tests/compat/test_upsample_primary.py::test_default_loads_each_part_once.

This file is loaded by path, before the package may be imported.
"""

import functools
import inspect
from types import ModuleType
from typing import Any

_MARK = "fairseq_l2t_loads_each_part_once"
_NOT_GIVEN = -1


def patch_loading(translation: ModuleType) -> None:
    """Load each part once where ``--upsample-primary`` is -1; refuse other negative values.

    ``translation`` is the module ``fairseq.tasks.translation``, just executed; other tasks import its function.
    """
    original = translation.load_langpair_dataset
    if hasattr(original, _MARK):
        return
    signature = inspect.signature(original)

    @functools.wraps(original)
    def load_langpair_dataset(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind(*args, **kwargs)
        times = given.arguments["upsample_primary"]
        if times < _NOT_GIVEN:
            raise ValueError(f"--upsample-primary: {times}; expected at least 0 (default: 1)")
        given.arguments["upsample_primary"] = 1 if times == _NOT_GIVEN else times
        return original(*given.args, **given.kwargs)

    setattr(load_langpair_dataset, _MARK, True)
    translation.load_langpair_dataset = load_langpair_dataset  # type: ignore[attr-defined]  # replaces a function
