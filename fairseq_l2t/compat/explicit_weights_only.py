"""``torch.load`` without ``weights_only``, which an environment variable turns into execution of pickled code.

Versions: fairseq 0.12.2 with PyTorch >= 2.6. fairseq never gives the argument, so its value is PyTorch's default, True,
unless ``TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD`` is set, for example for another program of the same shell. Then a
checkpoint for fairseq-generate, ``--restore-file`` or ``--student-init`` runs the code pickled in it.
Without it fails: tests/compat/test_explicit_weights_only.py::test_the_environment_cannot_allow_code.

This file is loaded by path, before the package may be imported.
"""

import re
from pathlib import Path
from types import ModuleType
from typing import Any

_FIRST_VERSION_WITH_THIS_DEFAULT = (2, 6)
_LOAD_CALL = re.compile(r"\btorch\.load\(")


def patch_loads(module: ModuleType) -> None:
    """Make ``torch.load(...)`` in ``module``, a module of fairseq just executed, pass ``weights_only=True``.

    A module whose source does not call it is left unchanged, and so is ``torch`` itself. Before PyTorch 2.6, whose
    list of allowed types is another one, nothing is changed.
    """
    origin = getattr(module.__spec__, "origin", None)
    if origin is None or not origin.endswith(".py"):
        return
    if not _LOAD_CALL.search(Path(origin).read_text(encoding="utf-8")):
        return
    torch = getattr(module, "torch", None)  # an import inside a function is that function's own
    if torch is not None and torch.__version__ >= _FIRST_VERSION_WITH_THIS_DEFAULT:
        module.torch = _DataOnlyTorch(torch)  # type: ignore[attr-defined]  # replaces a name of the module


class _DataOnlyTorch(ModuleType):
    """The module ``torch``, except that ``load`` reads data only."""

    def __init__(self, torch: ModuleType) -> None:
        super().__init__(torch.__name__, torch.__doc__)
        self._torch = torch

    def __getattr__(self, name: str) -> Any:
        return getattr(self._torch, name)

    def load(self, *args: Any, **kwargs: Any) -> Any:
        """Call ``torch.load``; an explicit ``weights_only`` of the caller is kept."""
        return self._torch.load(*args, **{"weights_only": True, **kwargs})
