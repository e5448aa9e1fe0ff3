"""Makes stock fairseq work in every interpreter of this environment, at no cost to other programs.

A one-line ``.pth`` file imports this module when Python starts. All that happens then is one more entry in
``sys.meta_path``; the mends themselves (``fairseq_l2t/compat``) are loaded when the module they mend is.

The module stands outside the package because ``fairseq-train --user-dir fairseq_l2t`` refuses a folder whose
name is already in ``sys.modules``: nothing here, nor anything it loads, may carry the name ``fairseq_l2t``.
"""

import sys

# Module -> (file in fairseq_l2t/compat, function). These get the module's name, before it is looked up,
_MENDS_BEFORE = {
    "antlr4": ("typing_io", "mend_antlr"),
    "fairseq": ("dataclass_defaults", "mend_package"),
    "hydra": ("dataclass_defaults", "mend_package"),
}
# and these, one after the other, the module itself, once it has been executed.
_MENDS_AFTER = {
    "_pytest.assertion.rewrite": [("pytest_import_hook", "mend_rewriting_hook")],
    "fairseq.checkpoint_utils": [("checkpoint_types", "mend_torch_load")],
    "fairseq_cli.train": [("empty_hypotheses", "mend_validation"), ("early_stopping", "mend_resume")],
    "fairseq.modules.transformer_layer": [("encoder_fast_path", "mend_encoder_layers")],
    "hydra.core.plugins": [("plugin_scan", "mend_plugin_scan")],
}


class _MendOnImport:
    """Meta-path finder that finds nothing of its own: it mends modules that the other finders find."""

    def __init__(self):
        self._before = dict(_MENDS_BEFORE)
        self._asking_others = False

    def find_spec(self, fullname, path=None, target=None):
        if self._asking_others:
            return None
        if fullname in self._before:
            # Taken out first: the mend looks the same module up, and must not come back here.
            _apply(self._before.pop(fullname), fullname)
        if fullname in _MENDS_AFTER and fullname not in sys.modules:
            return self._spec_that_mends(fullname)
        return None

    def _spec_that_mends(self, fullname):
        """The spec the other finders give for a module, with a mend to follow its execution."""
        import importlib.util

        self._asking_others = True
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self._asking_others = False
        if spec is not None and spec.loader is not None:
            spec.loader = _MendingLoader(spec.loader, _MENDS_AFTER[fullname])
        return spec


class _MendingLoader:
    """Another loader, followed by mends; the module itself never sees this one."""

    def __init__(self, loader, mends):
        self._loader = loader
        self._mends = mends

    def create_module(self, spec):
        return self._loader.create_module(spec)

    def exec_module(self, module):
        module.__spec__.loader = module.__loader__ = self._loader
        self._loader.exec_module(module)
        for mend in self._mends:
            _apply(mend, module)


def _apply(mend, argument):
    """Call a mend; do nothing when the package it belongs to has been removed."""
    file_stem, function_name = mend
    compat = _load_compat(file_stem)
    if compat is not None:
        getattr(compat, function_name)(argument)


def _load_compat(file_stem):
    """Load one compat file under a private name; None when it is not there."""
    import importlib.util
    import os

    private_name = "_fairseq_l2t_compat_" + file_stem
    if private_name in sys.modules:
        return sys.modules[private_name]
    package = importlib.util.find_spec("fairseq_l2t")
    if package is None or not package.submodule_search_locations:
        return None
    file_path = os.path.join(package.submodule_search_locations[0], "compat", file_stem + ".py")
    if not os.path.isfile(file_path):
        return None
    spec = importlib.util.spec_from_file_location(private_name, file_path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[private_name] = module
    spec.loader.exec_module(module)
    return module


FINDER = _MendOnImport()
sys.meta_path.insert(0, FINDER)
