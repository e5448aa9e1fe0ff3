"""``import fairseq_l2t`` before ``import fairseq``, which registers neither task nor criterion.

Versions: fairseq 0.12.2. Plugins register with fairseq, so that they must import it. This package does not, because it
is of use without fairseq; a program that imports it first and fairseq later gets ``KeyError: 'l2t_dlf'``.
Without it fails: tests/compat/test_startup.py::test_the_plugin_registers_in_either_order.

This file is loaded by path, before the package may be imported.
"""

import importlib
import sys
from types import ModuleType


def register_plugin(_fairseq: ModuleType) -> None:
    """Import the plugin if the package has been imported; ``_fairseq`` is the module, just executed."""
    if "fairseq_l2t" in sys.modules:
        importlib.import_module("fairseq_l2t.plugin")
