"""hydra's report of an error, which hides it on Python 3.10 and later.

Versions: Python >= 3.10 with hydra-core < 1.1: ``TypeError: print_exception() got an unexpected keyword argument
'etype'`` in place of whatever ended fairseq-hydra-train.
Link: https://github.com/facebookresearch/hydra/issues/1520.
Without it fails: tests/end_to_end/test_hydra_train.py::test_an_error_is_reported.

This file is loaded by path, before the package may be imported: it imports the standard library only.
"""

import traceback
from types import ModuleType
from typing import Any


def patch_report(utils: ModuleType) -> None:
    """Make ``hydra._internal.utils``, just executed, print exceptions with the arguments of every Python version.

    Only that module's own name ``print_exception`` changes; releases that do not have it are left alone.
    """
    if hasattr(utils, "print_exception"):
        utils.print_exception = _print_exception  # type: ignore[attr-defined]  # replaces a name of the module


def _print_exception(etype: Any, value: BaseException, tb: Any) -> None:
    traceback.print_exception(etype, value, tb)  # by position: the first has another name since 3.10
