"""fairseq checkpoints under ``torch.load(weights_only=True)``, the default since PyTorch 2.6.

Versions: PyTorch >= 2.6 with fairseq <= 0.12.2, which stores the model's options in checkpoints as an
``argparse.Namespace``, and with ``--eval-bleu`` n-gram counts as NumPy arrays. Resuming, fairseq-generate and
fairseq-interactive fail with ``UnpicklingError: Weights only load failed``.
Link: https://github.com/facebookresearch/fairseq/issues/5610.
Without it fails: tests/compat/test_checkpoint_types.py::test_checkpoint_of_eval_bleu_loads.

``weights_only`` stays True: unpickling still cannot run code, it may only build a few more kinds of plain data. fairseq
also evaluates texts that the data contain, when it builds the model: see `evaluated_strings`.
This file is loaded by path, before the package may be imported.
"""

import argparse
from types import ModuleType
from typing import Any

_FIRST_VERSION_THAT_REFUSES = (2, 6)


def patch_torch_load(checkpoint_utils: ModuleType) -> None:
    """Allow the types in fairseq's checkpoints in ``torch.load``; do nothing before PyTorch 2.6.

    ``checkpoint_utils`` is the module ``fairseq.checkpoint_utils``, just executed: every program that reads a
    fairseq checkpoint imports it before its first ``torch.load``.
    """
    torch = checkpoint_utils.torch
    if torch.__version__ >= _FIRST_VERSION_THAT_REFUSES:
        torch.serialization.add_safe_globals(checkpoint_types())


def checkpoint_types() -> list[Any]:
    """Return the callables that unpickling a checkpoint of stock fairseq needs, beyond those PyTorch allows.

    Those of NumPy are looked up at run time: the function that rebuilds an array moved between releases, and the
    class of a dtype has a public name only since 1.25. The counts of ``--eval-bleu`` are integers, or doubles
    after fairseq's ``--fast-stat-sync``; a NumPy scalar occurs in no checkpoint, and is not allowed.
    """
    import numpy

    reduced = numpy.empty(0).__reduce__()
    count_dtypes = [type(numpy.dtype(number)) for number in (int, float)]
    return [argparse.Namespace, numpy.ndarray, numpy.dtype, reduced[0], *count_dtypes]
