"""A plug-in that is imported before fairseq, whose task and criterion fairseq then does not know.

Versions: all of fairseq, which knows a task from the moment its module is imported. ``import fairseq_l2t`` does not
import fairseq, because images need none. After ``import fairseq_l2t, fairseq`` a checkpoint of the task ``l2t_dlf``
would fail with ``KeyError: 'l2t_dlf'``.
Without it fails: tests/compat/test_late_registration.py::test_the_order_of_imports_does_not_matter.

This file is loaded by path, before the package may be imported.
"""

import importlib
import sys
from types import ModuleType

_PACKAGE, _PLUGIN = "fairseq_l2t", "fairseq_l2t.plugin"


def register_plugin(_fairseq: ModuleType) -> None:
    """Import the plugin when fairseq has been imported, if the package came first.

    A process that never imports the package, such as fairseq-train before ``--user-dir``, keeps its name free.
    """
    if _PACKAGE in sys.modules and _PLUGIN not in sys.modules:
        importlib.import_module(_PLUGIN)
