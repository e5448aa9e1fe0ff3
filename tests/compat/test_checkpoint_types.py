import pickle
from types import SimpleNamespace

import numpy
import pytest
import torch
from torch.torch_version import TorchVersion

from fairseq_l2t.compat.checkpoint_types import checkpoint_types, patch_torch_load


@pytest.fixture(autouse=True)
def same_safe_globals():
    """``safe_globals`` removes at its end also what was allowed before."""
    before = torch.serialization.get_safe_globals()
    yield
    torch.serialization.add_safe_globals(before)


def name_of(checkpoint_type):
    return f"{checkpoint_type.__module__}.{checkpoint_type.__qualname__}"


def test_checkpoint_of_eval_bleu_loads(trained):
    path = trained / "checkpoint_last.pt"
    with torch.serialization.safe_globals(checkpoint_types()):
        state = torch.load(path, weights_only=True)
    meters = [meter["val"] for _, _, _, meter in state["extra_state"]["metrics"]["valid"] if "val" in meter]
    assert any(isinstance(value, numpy.ndarray) for value in meters)


def test_checkpoint_of_eval_bleu_names_no_other_type(trained):
    """The list is complete; the control without it fails."""
    path = trained / "checkpoint_last.pt"
    before = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    try:
        needed = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
            torch.load(path, weights_only=True)
    finally:
        torch.serialization.add_safe_globals(before)
    assert set(needed) == {
        "argparse.Namespace",
        "numpy.core.multiarray._reconstruct",
        "numpy.dtype",
        "numpy.ndarray",
    }
    assert set(needed) <= {name_of(checkpoint_type) for checkpoint_type in checkpoint_types()} | {
        "numpy.core.multiarray._reconstruct"
    }


@pytest.mark.parametrize("counts", [numpy.array([3, 2, 1, 0]), numpy.array([3.0, 2.0, 1.0, 0.0])])
def test_counts_survive(tmp_path, counts):
    torch.save(counts, tmp_path / "counts.pt")
    with torch.serialization.safe_globals(checkpoint_types()):
        loaded = torch.load(tmp_path / "counts.pt", weights_only=True)
    assert loaded.dtype == counts.dtype
    assert loaded.tolist() == counts.tolist()


class _Malicious:
    def __init__(self, victim):
        self.victim = victim

    def __reduce__(self):
        return (open, (str(self.victim), "w"))


@pytest.mark.parametrize("wrap", [lambda thing: thing, lambda thing: numpy.array([thing], dtype=object)])
def test_code_is_still_refused(tmp_path, wrap):
    torch.save({"model": wrap(_Malicious(tmp_path / "victim"))}, tmp_path / "checkpoint.pt")
    with torch.serialization.safe_globals(checkpoint_types()), pytest.raises(pickle.UnpicklingError):
        torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert not (tmp_path / "victim").exists()


@pytest.mark.parametrize(("version", "touched"), [("2.5.1", False), ("2.6.0", True), ("2.13.0+cpu", True)])
def test_only_stacks_that_refuse_are_touched(version, touched):
    calls = []
    serialization = SimpleNamespace(add_safe_globals=calls.append)
    stand_in = SimpleNamespace(__version__=TorchVersion(version), serialization=serialization)
    patch_torch_load(SimpleNamespace(torch=stand_in))
    assert bool(calls) == touched
