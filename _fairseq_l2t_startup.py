"""Makes stock fairseq importable in every interpreter of this environment, at no cost to other programs.

A one-line ``.pth`` file imports this module when Python starts. All that happens then is one more entry in
``sys.meta_path``; the mends themselves (``fairseq_l2t/compat``) are loaded when fairseq or hydra is imported.

The module stands outside the package because ``fairseq-train --user-dir fairseq_l2t`` refuses a folder whose
name is already in ``sys.modules``: nothing here, nor anything it loads, may carry the name ``fairseq_l2t``.
"""

import sys

# What is about to be imported -> (file in fairseq_l2t/compat, function called with that name).
# `fairseq.checkpoint_utils` stands for "torch and fairseq are both in use": every program that reads a
# checkpoint passes there before the first torch.load, and it imports torch itself on its first lines.
# `fairseq.benchmark` is what `import fairseq` itself imports after all models and modules.
_MENDS = {
    "fairseq": ("dataclass_defaults", "mend_package"),
    "hydra": ("dataclass_defaults", "mend_package"),
    "fairseq.checkpoint_utils": ("checkpoint_types", "mend_torch_load"),
    "fairseq.benchmark": ("encoder_fast_path", "mend_encoder_layers"),
}


class _MendOnImport:
    """Meta-path finder that finds nothing itself: it mends a package just before others find it."""

    def __init__(self):
        self._pending = dict(_MENDS)

    def find_spec(self, fullname, path=None, target=None):
        if fullname in self._pending:
            # Taken out first: the mend looks the same package up, and must not come back here.
            file_stem, function_name = self._pending.pop(fullname)
            compat = _load_compat(file_stem)
            if compat is not None:
                getattr(compat, function_name)(fullname)
        return None


def _load_compat(file_stem):
    """Load one compat file under a private name; None when the package itself has been removed."""
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


def install():
    """Put the finder at the front of ``sys.meta_path``, once."""
    if not any(isinstance(finder, _MendOnImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _MendOnImport())


install()
