"""fairseq checkpoints under ``torch.load(weights_only=True)``, the default since PyTorch 2.6.

Versions: PyTorch >= 2.6 with fairseq <= 0.12.2, which keeps the model's options in checkpoints as an
``argparse.Namespace``, and with ``--eval-bleu`` n-gram counts as NumPy arrays. Resuming, fairseq-generate and
fairseq-interactive die with ``UnpicklingError: Weights only load failed``.
Link: https://github.com/facebookresearch/fairseq/issues/5610.
Without it fails: tests/compat/test_checkpoint_types.py::test_checkpoint_of_eval_bleu_loads.

``weights_only`` stays True: loading still cannot run code, it may build a few more kinds of plain data.
This file is loaded by path, before the package may be imported.
"""

import argparse

_FIRST_VERSION_THAT_REFUSES = (2, 6)


def mend_torch_load(checkpoint_utils):
    """Tell ``torch.load`` that the types in fairseq's checkpoints are plain data; nothing before PyTorch 2.6.

    ``checkpoint_utils`` is the module ``fairseq.checkpoint_utils``, just executed: every program that reads a
    fairseq checkpoint imports it before its first ``torch.load``.
    """
    torch = checkpoint_utils.torch
    if torch.__version__ >= _FIRST_VERSION_THAT_REFUSES:
        torch.serialization.add_safe_globals(checkpoint_types())


def checkpoint_types():
    """What unpickling a checkpoint of stock fairseq calls, beyond what PyTorch allows by itself.

    NumPy's share is read off NumPy: the function an array is rebuilt with moved between releases, and the
    class of a dtype has a public name only since 1.25. The counts of ``--eval-bleu`` are integers, or doubles
    after fairseq's ``--fast-stat-sync``; a NumPy scalar occurs in no checkpoint, and is not allowed.
    """
    import numpy

    rebuild_array = numpy.empty(0).__reduce__()[0]
    count_dtypes = [type(numpy.dtype(number)) for number in (int, float)]
    return [argparse.Namespace, numpy.ndarray, numpy.dtype, rebuild_array, *count_dtypes]
