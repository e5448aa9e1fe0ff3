"""Checkpoints that are copied inside an ``assert`` statement, which ``python -O`` drops.

Versions: fairseq 0.12.2. ``checkpoint_utils.save_checkpoint`` writes one file and copies it to the other names, such as
``checkpoint_last.pt``. Under ``python -O`` they are missing without a word, and a resumed run starts from nothing.
Without it fails: tests/end_to_end/test_optimised.py::test_same_student.

This file is loaded by path, before the package may be imported.
"""

import inspect
import sys
from types import ModuleType


def patch_save_checkpoint(checkpoint_utils: ModuleType) -> None:
    """Compile ``save_checkpoint`` again, with its assertions; do nothing without ``-O``.

    ``checkpoint_utils`` is the module ``fairseq.checkpoint_utils``, just executed.
    """
    if not sys.flags.optimize:
        return
    lines, first = inspect.getsourcelines(checkpoint_utils.save_checkpoint)
    source = "\n" * (first - 1) + "".join(lines)  # keeps the line numbers of tracebacks
    exec(compile(source, str(checkpoint_utils.__file__), "exec", optimize=0), vars(checkpoint_utils))
