"""Learning to Teach with Dynamic Loss Functions (Wu et al., NeurIPS 2018) for fairseq.

This folder is the value of ``fairseq-train --user-dir``. The task ``l2t_dlf`` and the criterion
``dynamic_teacher_loss`` are registered as soon as both this package and fairseq are imported, in any order
(`compat.plugin_registration`). This package alone (``import fairseq_l2t.core``) does not import fairseq.
"""

import sys

__version__ = "0.1.0"

__all__ = ["__version__"]

if sys.modules.get("fairseq") is not None:  # None: its import is blocked
    # Registers the task and the criterion.
    from fairseq_l2t import plugin as plugin
