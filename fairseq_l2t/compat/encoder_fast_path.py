"""The Transformer encoder's fused evaluation path, which fails on padded batches.

Versions: fairseq 0.12.2 with PyTorch >= 1.13, where ``torch._transformer_encoder_layer_fwd`` must be told
which kind of mask it gets, and fairseq does not pass it: ``RuntimeError: Mask Type should be defined``, in
fairseq-generate and fairseq-validate, as soon as one batch holds sentences of different lengths.
Links: https://github.com/facebookresearch/fairseq/issues/4858 and /4899.
Without it fails: tests/compat/test_encoder_fast_path.py::test_padded_batch_is_encoded.

This file is loaded by path, before the package may be imported.
"""

import functools
from types import ModuleType
from typing import Any

_FIRST_VERSION_THAT_FAILS = (1, 13)
_MARK = "fairseq_l2t_without_fast_path"


def patch_encoder_layers(transformer_layer: ModuleType) -> None:
    """Make Transformer encoder layers evaluate by the path they train by; do nothing before PyTorch 1.13.

    ``transformer_layer`` is the module ``fairseq.modules.transformer_layer``, just executed. Results stay the
    same up to rounding, and evaluation takes as long as the forward pass of training.
    """
    layer_class = transformer_layer.TransformerEncoderLayerBase
    original = layer_class.__init__
    if transformer_layer.torch.__version__ < _FIRST_VERSION_THAT_FAILS or hasattr(original, _MARK):
        return
    if "_transformer_encoder_layer_fwd" not in layer_class.forward.__code__.co_names:
        return

    @functools.wraps(original)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        self.can_use_fastpath = False

    setattr(__init__, _MARK, True)
    layer_class.__init__ = __init__
