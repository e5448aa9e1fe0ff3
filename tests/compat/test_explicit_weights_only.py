"""Pickled code stays refused when an environment variable would allow it."""

import ast
import importlib
import pickle
import re
from pathlib import Path

import fairseq
import pytest
import torch
from fairseq import checkpoint_utils

from fairseq_l2t.plugin.student.initial_weights import read_weights
from fairseq_l2t.plugin.student_options import OptionError


class Trap:
    """Unpickling it makes a folder."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return Path.mkdir, (Path(self.folder),)


@pytest.fixture
def checkpoint(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    torch.save({"model": Trap(tmp_path / "victim"), "args": None}, tmp_path / "checkpoint.pt")
    return str(tmp_path / "checkpoint.pt")


def test_the_environment_cannot_allow_code(checkpoint, tmp_path):
    """Control: PyTorch's own function runs it under this variable."""
    with pytest.raises(pickle.UnpicklingError):
        checkpoint_utils.load_checkpoint_to_cpu(checkpoint)
    with pytest.raises(OptionError, match="^--student-init: .* cannot be read as a fairseq checkpoint"):
        read_weights(checkpoint)
    assert not (tmp_path / "victim").exists()
    with pytest.warns(UserWarning, match="forcing weights_only=False"):
        torch.load(checkpoint)
    assert (tmp_path / "victim").exists()


def test_every_module_of_fairseq_that_loads_is_patched():
    root, found = Path(fairseq.__file__).parent, []
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root.parent).with_suffix("").parts
        if "examples" not in parts and re.search(r"\btorch\.load\(", path.read_text()):
            module = importlib.import_module(".".join(parts))
            assert module.torch.load.__func__.__qualname__ == "_DataOnlyTorch.load", parts
            assert module.torch.Tensor is torch.Tensor
            found.append(parts[-1])
    assert {"checkpoint_utils", "utils", "vocoder"} <= set(found)
    assert importlib.import_module("fairseq.trainer").torch is torch


def test_own_code_says_it_wherever_it_loads(repository):
    calls = [
        (path.name, [keyword.arg for keyword in node.keywords])
        for folder in ("fairseq_l2t", "toy_corpus", "experiments", "benchmarks", "examples")
        for path in (repository / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "torch.load"
    ]
    assert calls and not [path for path, keywords in calls if "weights_only" not in keywords]
