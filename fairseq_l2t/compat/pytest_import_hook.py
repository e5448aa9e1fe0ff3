"""pytest's import hook, which finds hydra before anything can be mended.

Versions: Python >= 3.11, any pytest, hydra-core < 1.3. hydra brings a pytest plugin, so pytest imports hydra at
every start, by a hook of its own that goes before all other finders: no test suite runs in such an
environment, whether it uses hydra or not.
Without it fails: tests/compat/test_startup.py::test_pytest_starts.

This file is loaded by path, before the package may be imported: it imports the standard library only.
"""

import functools
import sys


def mend_rewriting_hook(rewrite_module):
    """Have pytest's hook ask our finder first; nothing before Python 3.11.

    ``rewrite_module`` is ``_pytest.assertion.rewrite``, just executed.
    """
    if sys.version_info < (3, 11):
        return
    finder = sys.modules["_fairseq_l2t_startup"].FINDER
    hook_class = rewrite_module.AssertionRewritingHook
    original = hook_class.find_spec

    @functools.wraps(original)
    def find_spec(self, name, path=None, target=None):
        spec = finder.find_spec(name, path, target)
        return original(self, name, path, target) if spec is None else spec

    hook_class.find_spec = find_spec
