from types import SimpleNamespace

import pytest
import torch
from fairseq.models.transformer import TransformerConfig
from fairseq.modules.transformer_layer import TransformerEncoderLayerBase
from torch.torch_version import TorchVersion

from fairseq_l2t.compat.encoder_fast_path import patch_encoder_layers


@pytest.fixture
def loaded_layer():
    """An encoder layer in the one state in which fairseq takes the fused path: loaded, and never trained."""
    config = TransformerConfig()
    config.encoder.embed_dim = config.encoder.ffn_embed_dim = 8
    config.encoder.attention_heads = 2
    config.dropout = 0.0
    torch.manual_seed(1)
    layer = TransformerEncoderLayerBase(config)
    layer.load_state_dict(layer.state_dict())
    return layer.eval()


@pytest.fixture
def padded_batch():
    """States (length 3, batch 2, 8) and the padding mask (batch 2, length 3) of a longer and a shorter sentence."""
    generator = torch.Generator().manual_seed(2)
    return torch.randn(3, 2, 8, generator=generator), torch.tensor([[False, False, False], [False, False, True]])


def test_padded_batch_is_encoded(loaded_layer, padded_batch):
    states, padding = padded_batch
    with torch.no_grad():
        evaluated = loaded_layer(states, padding)
        trained = loaded_layer.train()(states, padding)
    assert torch.equal(evaluated, trained)


def test_stock_layer_fails(loaded_layer, padded_batch):
    """The control: with the fused path back on, this PyTorch still refuses the call."""
    loaded_layer.can_use_fastpath = True
    with torch.no_grad(), pytest.raises(RuntimeError, match="Mask Type should be defined"):
        loaded_layer(*padded_batch)


@pytest.mark.parametrize(("version", "touched"), [("1.12.1", False), ("1.13.0", True), ("2.13.0+cpu", True)])
def test_only_stacks_that_fail_are_touched(version, touched):
    class Layer:
        def forward(self):
            return torch._transformer_encoder_layer_fwd()

    original = Layer.__init__
    stand_in = SimpleNamespace(__version__=TorchVersion(version))
    patch_encoder_layers(SimpleNamespace(torch=stand_in, TransformerEncoderLayerBase=Layer))
    assert (Layer.__init__ is not original) == touched


def test_layers_without_the_fused_path_are_left_alone():
    class Layer:
        def forward(self):
            return None

    original = Layer.__init__
    patch_encoder_layers(SimpleNamespace(torch=torch, TransformerEncoderLayerBase=Layer))
    assert Layer.__init__ is original
