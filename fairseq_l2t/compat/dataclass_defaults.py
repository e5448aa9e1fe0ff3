"""Dataclass instances as dataclass defaults, which Python 3.11 and later refuse.

Versions: Python >= 3.11 with fairseq <= 0.12.2 (14 places) or hydra-core < 1.3 (9 places); both die at import
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
import sys

# The first file of each package that Python 3.11 stumbles over, relative to the package's folder.
_FIRST_FILE_TO_FAIL = {
    "fairseq": os.path.join("dataclass", "configs.py"),
    "hydra": os.path.join("conf", "__init__.py"),
}

# `common: CommonConfig = CommonConfig()`: the form both packages use, and which their later releases dropped.
_INSTANCE_AS_DEFAULT = re.compile(r"^\s+\w+: (\w+) = \1\(\)", re.MULTILINE)


def mend_package(package):
    """Allow dataclass instances as defaults in the classes of ``package``, if it needs that.

    ``package`` is a top-level name, `fairseq` or `hydra`, not imported yet. Nothing is touched on
    Python 3.10, nor for releases of the package that import as they are.
    """
    if sys.version_info >= (3, 11) and _has_instance_defaults(package):
        _allowed_packages().add(package)


def _has_instance_defaults(package):
    """Whether the installed source of ``package`` has the defect; read from the file, not from a version."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return False
    file_path = os.path.join(spec.submodule_search_locations[0], _FIRST_FILE_TO_FAIL[package])
    if not os.path.isfile(file_path):
        return False
    with open(file_path, encoding="utf-8") as source:
        return _INSTANCE_AS_DEFAULT.search(source.read()) is not None


def _allowed_packages():
    """The set of mended packages, kept on the wrapper itself; wraps ``dataclasses._get_field`` at first use.

    The wrapper holds the set because this file may be loaded twice, under two module names.
    """
    current = dataclasses._get_field
    if not hasattr(current, "fairseq_l2t_packages"):
        dataclasses._get_field = _accept_instances(current)
    return dataclasses._get_field.fairseq_l2t_packages


def _accept_instances(original):
    """Wrap ``dataclasses._get_field`` so that mended packages may use dataclass instances as defaults."""
    packages = set()

    @functools.wraps(original)
    def _get_field(cls, a_name, *rest):
        if cls.__module__.partition(".")[0] not in packages:
            return original(cls, a_name, *rest)
        default = getattr(cls, a_name, None)
        declared = default if isinstance(default, dataclasses.Field) else None
        instance = declared.default if declared is not None else default
        if isinstance(instance, type) or not dataclasses.is_dataclass(instance):
            return original(cls, a_name, *rest)
        # The original never sees the instance, only a field without default; the instance is put back
        # afterwards, so that `Field.default` and the class attribute are what Python 3.10 makes them
        # (OmegaConf and fairseq's option parser read both).
        if declared is None:
            declared = dataclasses.field()
            setattr(cls, a_name, declared)
        else:
            declared.default = dataclasses.MISSING
        field = original(cls, a_name, *rest)
        field.default = instance
        return field

    _get_field.fairseq_l2t_packages = packages
    return _get_field
