"""Dataclass instances as dataclass defaults, which Python 3.11 and later refuse.

Versions: Python >= 3.11 with fairseq <= 0.12.2 (14 places) or hydra-core < 1.3 (9 places); both fail at import
with ``ValueError: mutable default <class ...> for field ... is not allowed: use default_factory``.
Links: https://github.com/facebookresearch/fairseq/issues/5012,
https://github.com/hydra-ecosystem/hydra/pull/2418, https://github.com/python/cpython/issues/88840.
Without it fails: tests/compat/test_other_pythons.py::test_hydra_composes.

This file is loaded by path, before the package may be imported: it imports the standard library only.
"""

import dataclasses
import functools
import importlib.util
import os
import re
from collections.abc import Callable
from typing import Any

# The first file of each package that fails on Python 3.11, relative to the package's folder.
_FIRST_FILE_TO_FAIL = {
    "fairseq": os.path.join("dataclass", "configs.py"),
    "hydra": os.path.join("conf", "__init__.py"),
}

# `common: CommonConfig = CommonConfig()`: the form both packages use, and which their later releases dropped.
_INSTANCE_AS_DEFAULT = re.compile(r"^\s+\w+: (\w+) = \1\(\)", re.MULTILINE)

_MAKE_FIELD = "_get_field"
"""The function of `dataclasses` that refuses; it is not public, so type checkers do not know it."""
_PACKAGES = "fairseq_l2t_packages"
"""Attribute of the wrapper that holds the patched packages: this file may be loaded twice, under two module names."""


def patch_package(package: str) -> None:
    """Allow dataclass instances as defaults in the classes of ``package``, if it needs that.

    ``package`` is a top-level name, `fairseq` or `hydra`, not imported yet. Releases of the package that import
    without the patch are left alone.
    """
    if _has_instance_defaults(package):
        _patched_packages().add(package)


def _has_instance_defaults(package: str) -> bool:
    """Return whether the installed source of ``package`` has the defect; read from the file, not from a version."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return False
    file_path = os.path.join(spec.submodule_search_locations[0], _FIRST_FILE_TO_FAIL[package])
    if not os.path.isfile(file_path):
        return False
    with open(file_path, encoding="utf-8") as source:
        return _INSTANCE_AS_DEFAULT.search(source.read()) is not None


def _patched_packages() -> set[str]:
    """Return the set of patched packages; the first call wraps the function of `dataclasses`."""
    current = getattr(dataclasses, _MAKE_FIELD)
    if not hasattr(current, _PACKAGES):
        setattr(dataclasses, _MAKE_FIELD, _accept_instances(current))
    packages: set[str] = getattr(getattr(dataclasses, _MAKE_FIELD), _PACKAGES)
    return packages


def _accept_instances(original: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap ``dataclasses._get_field`` so that patched packages may use dataclass instances as defaults."""
    packages: set[str] = set()

    @functools.wraps(original)
    def make_field(cls: type, name: str, *rest: Any) -> Any:
        if cls.__module__.partition(".")[0] not in packages:
            return original(cls, name, *rest)
        default = getattr(cls, name, None)
        declared = default if isinstance(default, dataclasses.Field) else None
        instance = declared.default if declared is not None else default
        if isinstance(instance, type) or not dataclasses.is_dataclass(instance):
            return original(cls, name, *rest)
        # The original never sees the instance, only a field without default. The instance is put back afterwards, so
        # that `Field.default` and the class attribute are the same as on Python 3.10: OmegaConf and fairseq's option
        # parser read both.
        if declared is None:
            setattr(cls, name, dataclasses.field())
        else:
            declared.default = dataclasses.MISSING
        field = original(cls, name, *rest)
        field.default = instance
        return field

    setattr(make_field, _PACKAGES, packages)
    return make_field
