"""Makes stock fairseq work in every interpreter of this environment, at no cost to other programs.

A one-line ``.pth`` file imports this module when Python starts. It adds one entry to ``sys.meta_path`` and does nothing
else; a patch (a function of ``fairseq_l2t/compat``) is loaded when the module it patches is imported.

The module stands outside the package because ``fairseq-train --user-dir fairseq_l2t`` refuses a folder whose name is
already in ``sys.modules``: neither this module nor anything it loads may have the name ``fairseq_l2t``. It imports
nothing but ``sys``, and its annotations are strings, because it runs at every start of Python.
"""

import sys

TYPE_CHECKING = False  # type checkers take a variable of this name as true; `typing` would cost a millisecond
if TYPE_CHECKING:
    from collections.abc import Sequence
    from importlib.abc import Loader
    from importlib.machinery import ModuleSpec
    from types import CodeType, ModuleType

# Module -> (file in fairseq_l2t/compat, function). The function gets the name of the module before its first import.
_PATCHES_BEFORE = {
    "fairseq": ("dataclass_defaults", "patch_package"),
    "hydra": ("dataclass_defaults", "patch_package"),
}
# The functions get the module itself after it has been executed, in this order.
_PATCHES_AFTER = {
    "_pytest.assertion.rewrite": [("pytest_import_hook", "patch_rewriting_hook")],
    "fairseq": [("plugin_registration", "register_plugin")],
    "fairseq.checkpoint_utils": [
        ("checkpoint_types", "patch_torch_load"),
        ("asserted_copies", "patch_save_checkpoint"),
    ],
    "fairseq_cli.generate": [("user_errors", "patch_command")],
    "fairseq_cli.interactive": [("user_errors", "patch_command")],
    "fairseq_cli.train": [
        ("empty_hypotheses", "patch_validation"),
        ("early_stopping", "patch_resume"),
        ("hydra_architectures", "patch_configuration"),
        ("user_errors", "patch_command"),
    ],
    "fairseq_cli.validate": [("user_errors", "patch_command")],
    "fairseq.data.iterators": [("skipped_remainder", "patch_epoch_length")],
    "fairseq.dataclass.utils": [("interpolated_defaults", "patch_overrides")],
    "fairseq.distributed.utils": [("process_spawning", "patch_call_main")],
    "fairseq.tasks.translation": [("upsample_primary", "patch_loading")],
    "fairseq.modules.transformer_layer": [("encoder_fast_path", "patch_encoder_layers")],
    "hydra._internal.utils": [("hydra_report", "patch_report")],
    "hydra.core.plugins": [("plugin_scan", "patch_plugin_scan")],
}
# The functions get every module of fairseq, its commands and its examples, wherever `--user-dir` finds these.
_PATCHES_OF_FAIRSEQ = [("evaluated_strings", "patch_eval"), ("explicit_weights_only", "patch_loads")]
_FAIRSEQ_PACKAGES = ("fairseq", "fairseq_cli")


class _PatchOnImport:
    """Meta-path finder that locates no module itself: it patches modules that the other finders locate."""

    def __init__(self) -> None:
        self._before = dict(_PATCHES_BEFORE)
        self._being_found: set[str] = set()

    def find_spec(
        self, fullname: str, path: "Sequence[str] | None" = None, target: "ModuleType | None" = None
    ) -> "ModuleSpec | None":
        if fullname in self._being_found:
            return None
        if fullname in self._before:
            # Removed first, because the patch looks up the same module and would arrive here again.
            _apply(self._before.pop(fullname), fullname)
        patches = _PATCHES_AFTER.get(fullname, [])
        if fullname.partition(".")[0] in _FAIRSEQ_PACKAGES or _is_example(path):
            patches = _PATCHES_OF_FAIRSEQ + patches
        if patches and fullname not in sys.modules:
            return self._patching_spec(fullname, patches)
        return None

    def _patching_spec(self, fullname: str, patches: "Sequence[tuple[str, str]]") -> "ModuleSpec | None":
        """Return the spec that the other finders give for a module, with a loader that also patches it."""
        import importlib.util

        self._being_found.add(fullname)
        try:
            spec = importlib.util.find_spec(fullname)
        finally:
            self._being_found.discard(fullname)
        if spec is not None and spec.loader is not None:
            loader = _PatchingLoader(spec.loader, patches)
            spec.loader = loader  # type: ignore[assignment]  # a Loader by its methods; importlib.abc costs start-up time
        return spec


def _is_example(path: "Sequence[str] | None") -> bool:
    """Return whether the parent package of a module lies in the examples of fairseq."""
    return path is not None and any("/fairseq/examples/" in folder for folder in path)


class _PatchingLoader:
    """Another loader, followed by patches; the module itself never sees this one."""

    def __init__(self, loader: "Loader", patches: "Sequence[tuple[str, str]]") -> None:
        self._loader = loader
        self._patches = patches

    def __getattr__(self, name: str) -> "object":
        return getattr(self._loader, name)  # `python -m` asks for the code instead of executing the module

    def create_module(self, spec: "ModuleSpec") -> "ModuleType | None":
        return self._loader.create_module(spec)

    def exec_module(self, module: "ModuleType") -> None:
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        module.__loader__ = self._loader
        self._loader.exec_module(module)
        for patch in self._patches:
            _apply(patch, module)

    def get_code(self, fullname: str) -> "CodeType | None":
        """Return what ``python -m fullname`` runs: a command is imported, and so patched, before it is called."""
        if fullname.startswith("fairseq_cli."):
            return compile(f"from {fullname} import cli_main\ncli_main()", f"<{fullname}>", "exec")
        code: CodeType | None = self._loader.get_code(fullname)  # type: ignore[attr-defined]  # of loaders of source
        return code


def _apply(patch: "tuple[str, str]", argument: "str | ModuleType") -> None:
    """Call a patch; do nothing when the package it belongs to has been removed."""
    file_stem, function_name = patch
    compat = _load_compat(file_stem)
    if compat is not None:
        getattr(compat, function_name)(argument)


def _load_compat(file_stem: str) -> "ModuleType | None":
    """Load one compat file under a private name; None when it does not exist."""
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
    if spec is None or spec.loader is None:
        return None
    module = importlib.util.module_from_spec(spec)
    sys.modules[private_name] = module
    spec.loader.exec_module(module)
    return module


FINDER = _PatchOnImport()
sys.meta_path.insert(0, FINDER)
