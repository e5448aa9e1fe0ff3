"""pytest's import hook, which imports hydra before it can be patched.

Versions: Python >= 3.11, any pytest, hydra-core < 1.3. hydra brings a pytest plugin, so pytest imports hydra at
every start, by a hook of its own that goes before all other finders: no test suite runs in such an
environment, whether it uses hydra or not.
Without it fails: tests/compat/test_startup.py::test_pytest_starts.

This file is loaded by path, before the package may be imported: it imports the standard library only.
"""

import functools
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


def patch_rewriting_hook(rewrite_module: ModuleType) -> None:
    """Make pytest's hook ask the finder of `_fairseq_l2t_startup` first.

    ``rewrite_module`` is ``_pytest.assertion.rewrite``, just executed.
    """
    finder = sys.modules["_fairseq_l2t_startup"].FINDER
    hook_class = rewrite_module.AssertionRewritingHook
    original = hook_class.find_spec

    @functools.wraps(original)
    def find_spec(
        self: Any, name: str, path: Sequence[str | bytes] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec: ModuleSpec | None = finder.find_spec(name, path, target) or original(self, name, path, target)
        return spec

    hook_class.find_spec = find_spec
