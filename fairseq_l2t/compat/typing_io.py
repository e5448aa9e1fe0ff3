"""The pseudo-module ``typing.io``, which Python 3.13 no longer has.

Versions: Python >= 3.13 with antlr4-python3-runtime 4.8, which hydra-core 1.0.7 parses overrides with:
``ModuleNotFoundError: No module named 'typing.io'; 'typing' is not a package``. Mended upstream in 4.9.2.
Link: https://github.com/antlr/antlr4/issues/2611.
Without it fails: tests/compat/test_other_pythons.py::test_hydra_composes (Python 3.13).

This file is loaded by path, before the package may be imported: it imports the standard library only.
"""

import importlib.util
import os
import sys
import types
import typing


def mend_antlr(package="antlr4"):
    """Register ``typing.io`` as Python 3.12 does, if the installed antlr4 imports from it."""
    if sys.version_info >= (3, 13) and "typing.io" not in sys.modules and _imports_typing_io(package):
        module = types.ModuleType("typing.io", "What antlr4 4.8 imports from the typing.io of Python < 3.13.")
        module.TextIO = typing.TextIO
        sys.modules["typing.io"] = module


def _imports_typing_io(package):
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return False
    lexer_path = os.path.join(spec.submodule_search_locations[0], "Lexer.py")
    if not os.path.isfile(lexer_path):
        return False
    with open(lexer_path, encoding="utf-8") as source:
        return "from typing.io import TextIO" in source.read()
