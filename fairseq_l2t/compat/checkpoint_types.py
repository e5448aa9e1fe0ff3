"""fairseq checkpoints under ``torch.load(weights_only=True)``.

placeholder
"""

import argparse


def mend_torch_load(_module_name=None):
    import torch
    torch.serialization.add_safe_globals([argparse.Namespace])
