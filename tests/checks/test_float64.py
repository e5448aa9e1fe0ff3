"""Float64 through code with casts to float32."""

import pytest
import torch
from torch.nn import functional as F

from fairseq_l2t.checks.float64 import KeepFloat64

WIDE = torch.tensor([0.1, 1.0 / 3, 2.0], dtype=torch.float64)

CASTS = {
    "float": lambda x: x.float(),
    "softmax": lambda x: F.softmax(x, dim=-1, dtype=torch.float32),
    "log_softmax": lambda x: F.log_softmax(x, dim=-1, dtype=torch.float32),
}
UNCAST = {
    "float": lambda x: x,
    "softmax": lambda x: F.softmax(x, dim=-1),
    "log_softmax": lambda x: F.log_softmax(x, dim=-1),
}


@pytest.mark.parametrize("name", CASTS)
def test_float64_is_kept(name):
    with KeepFloat64():
        kept = CASTS[name](WIDE)
    assert torch.equal(kept, UNCAST[name](WIDE))
    # control: without the mode, eight digits are lost
    lost = CASTS[name](WIDE)
    assert lost.dtype == torch.float32
    assert 1e-9 < (lost - kept).abs().max() < 1e-6


@pytest.mark.parametrize("name", CASTS)
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_other_dtypes_are_cast(name, dtype):
    with KeepFloat64():
        assert CASTS[name](WIDE.to(dtype)).dtype == torch.float32


def test_other_requests_are_honoured():
    with KeepFloat64():
        assert WIDE.half().dtype == torch.float16
        assert F.softmax(WIDE, dim=-1, dtype=torch.float16).dtype == torch.float16
        assert torch.add(WIDE, 1).dtype == torch.float64


@pytest.mark.parametrize("name", CASTS)
def test_second_derivatives_are_kept_too(name):
    def function(x: torch.Tensor) -> torch.Tensor:
        with KeepFloat64():
            return CASTS[name](x * x).exp()

    leaf = WIDE.clone().requires_grad_()
    assert torch.autograd.gradgradcheck(function, (leaf,))
