"""hydra's search for its own plugins, which calls importlib methods that Python 3.12 removed.

Versions: Python >= 3.12 with hydra-core 1.0: ``AttributeError: 'FileFinder' object has no attribute
'find_module'`` as soon as a configuration is composed, which every fairseq command does.
Link: https://github.com/facebookresearch/hydra/pull/2531.
Without it fails: tests/compat/test_other_pythons.py::test_hydra_composes (Python 3.12).

This file is loaded by path, before the package may be imported: it imports the standard library only.
"""

import importlib
import pkgutil
import sys
import types
from collections.abc import Callable, Iterable, Iterator


def patch_plugin_scan(plugins_module: types.ModuleType) -> None:
    """Give ``hydra.core.plugins`` module finders that still have ``find_module``; do nothing before Python 3.12.

    ``plugins_module`` is that module, just executed. Only its own view of ``pkgutil`` changes.
    """
    names_used = plugins_module.Plugins._scan_all_plugins.__code__.co_names
    if sys.version_info >= (3, 12) and "find_module" in names_used and "find_spec" not in names_used:
        plugins_module.pkgutil = types.SimpleNamespace(  # type: ignore[attr-defined]  # replaces a name of the module
            walk_packages=_walk_packages
        )


def _walk_packages(
    path: Iterable[str] | None = None, prefix: str = "", onerror: Callable[[str], object] | None = None
) -> Iterator[tuple["_ImportByName", str, bool]]:
    """``pkgutil.walk_packages``, with finders and loaders of the kind Python 3.11 had."""
    for _finder, name, is_package in pkgutil.walk_packages(path, prefix, onerror):
        yield _ImportByName(), name, is_package


class _ImportByName:
    """Finder and loader in one: ``find_module(name).load_module(name)`` is the module."""

    def find_module(self, _name: str) -> "_ImportByName":
        return self

    def load_module(self, name: str) -> types.ModuleType:
        return importlib.import_module(name)
