"""Learning to Teach with Dynamic Loss Functions (Wu et al., NeurIPS 2018) for fairseq.

This folder is what ``fairseq-train --user-dir`` takes. When fairseq imports it, the task ``l2t_dlf`` and the
criterion ``dynamic_teacher_loss`` are registered; imported on its own (``import fairseq_l2t.core``), it does
not pull fairseq in.
"""

import sys

__version__ = "0.1.0"

__all__ = ["__version__"]

if sys.modules.get("fairseq") is not None:  # None: somebody keeps it from being imported
    # Registers the task and the criterion.
    from fairseq_l2t import plugin as plugin
