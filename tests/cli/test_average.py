"""`l2t-average` on small checkpoints: weights, what else the result contains, refusals."""

import argparse
import os

import pytest
import torch

from fairseq_l2t.cli.average import main

KINDS = {"layer": torch.float32, "half": torch.float16, "brain": torch.bfloat16, "count": torch.int64}


def weights_of(number):
    """Return one weight of each kind, all with values that a mean of three keeps exactly."""
    return {name: torch.tensor([number, 2 * number]).to(dtype) for name, dtype in KINDS.items()}


def save(path, number, updates, weights=None):
    state = {
        "cfg": {"model": argparse.Namespace(arch="tiny")},
        "model": weights_of(number) if weights is None else weights,
        "optimizer_history": [{"num_updates": updates}],
        "task_state": {"teaching": {"version": 1, "measures": {"dev_loss": number}}},
    }
    torch.save(state, path)
    return str(path)


@pytest.fixture
def folder(tmp_path):
    """Checkpoints of three epochs, and of three numbers of updates; of each the first is not the oldest."""
    for position, number in enumerate((6, 3, 9)):
        save(tmp_path / f"checkpoint{position + 9}.pt", number, 10 * (position + 9))
        save(tmp_path / f"checkpoint_1_{500 * (position + 1)}.pt", number, 500 * (position + 1))
    return tmp_path


def averaged(folder, *more):
    assert main(["--output", str(folder / "average.pt"), *map(str, more)]) == 0
    return torch.load(folder / "average.pt", weights_only=True)


def test_mean_of_the_weights(folder, capsys):
    paths = [folder / f"checkpoint{epoch}.pt" for epoch in (9, 10, 11)]
    model = averaged(folder, "--inputs", *paths)["model"]
    assert {name: weight.tolist() for name, weight in model.items()} == {name: [6, 12] for name in KINDS}
    assert [model[name].dtype for name in KINDS] == [torch.float32, torch.float32, torch.float32, torch.int64]
    assert "checkpoint10.pt" in capsys.readouterr().out
    assert averaged(folder, "--inputs", *paths[:2])["model"]["layer"].tolist() == [4.5, 9]


def test_everything_else_is_that_of_the_newest(folder):
    newest = torch.load(folder / "checkpoint11.pt", weights_only=True)
    for order in ((9, 10, 11), (11, 9, 10)):
        state = averaged(folder, "--inputs", *(folder / f"checkpoint{epoch}.pt" for epoch in order))
        assert {**state, "model": None} == {**newest, "model": None}
    assert newest["task_state"]["teaching"]["measures"]["dev_loss"] == 9


@pytest.mark.parametrize(
    ("more", "mean"),
    [
        (["--num-epoch-checkpoints", "2"], 6),
        (["--num-epoch-checkpoints", "3"], 6),
        (["--num-epoch-checkpoints", "2", "--checkpoint-upper-bound", "10"], 4.5),
        (["--num-update-checkpoints", "1"], 9),
        (["--num-update-checkpoints", "1", "--checkpoint-upper-bound", "1000"], 3),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_the_last_checkpoints_of_a_folder(folder, more, mean):
    assert averaged(folder, "--inputs", folder, *more)["model"]["layer"].tolist() == [mean, 2 * mean]


class Malice:
    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return os.mkdir, (str(self.trace),)


def faults(folder):
    """Return the options of each fault, and what the message says."""
    good = str(folder / "checkpoint9.pt")
    other = save(folder / "other.pt", 1, 1, {**weights_of(1), "layer": torch.ones(3)})
    more = save(folder / "more.pt", 1, 1, {**weights_of(1), "new": torch.ones(3)})
    torch.save({"model": Malice(folder / "trace")}, folder / "malice.pt")
    torch.save({"weights": {}}, folder / "none.pt")
    (folder / "text.pt").write_text("no checkpoint\n")
    return {
        "absent": ([good, folder / "absent.pt"], "absent.pt: not a fairseq checkpoint: FileNotFoundError"),
        "text": ([good, folder / "text.pt"], "text.pt: not a fairseq checkpoint"),
        "code": ([folder / "malice.pt"], "malice.pt: not a fairseq checkpoint: UnpicklingError"),
        "no weights": ([folder / "none.pt"], "none.pt: contains no weights by name"),
        "shape": ([good, other], "layer has shape (2,) in"),
        "name": ([good, more], "new is in one of"),
        "missing name": ([more, good], "new is in one of"),
        "twice": ([good, good], "checkpoint9.pt: given twice"),
        "few": ([folder, "--num-epoch-checkpoints", "4"], "has 3 files checkpointEPOCH.pt; expected at least 4"),
        "no folder": ([good, "--num-epoch-checkpoints", "1"], "checkpoint9.pt: Not a directory"),
        "two folders": ([folder, folder, "--num-epoch-checkpoints", "1"], "--inputs: 2 paths"),
        "zero": ([folder, "--num-epoch-checkpoints", "0"], "0; expected a whole number of at least 1"),
        "no number": ([good, "--checkpoint-upper-bound", "3"], "--checkpoint-upper-bound: 3; expected together with"),
    }


FAULTS = ["absent", "text", "code", "no weights", "shape", "name", "missing name", "twice"]
FAULTS += ["few", "no folder", "two folders", "zero", "no number"]


@pytest.mark.parametrize("kind", FAULTS)
def test_refusals(folder, capsys, kind):
    inputs, message = faults(folder)[kind]
    command = ["--output", str(folder / "average.pt"), "--inputs", *map(str, inputs)]
    try:
        code = main(command)
    except SystemExit as stop:
        code = stop.code
    told = capsys.readouterr().err
    assert code == 2
    assert told.startswith("l2t-average: error: ") and told.count("\n") == 1 and message in told
    assert not (folder / "average.pt").exists() and not (folder / "trace").exists()


def test_an_input_is_not_overwritten(folder, capsys):
    path = folder / "checkpoint9.pt"
    before = path.read_bytes()
    assert main(["--inputs", str(path), str(folder / "checkpoint10.pt"), "--output", str(path)]) == 2
    assert "is averaged itself" in capsys.readouterr().err
    assert path.read_bytes() == before
