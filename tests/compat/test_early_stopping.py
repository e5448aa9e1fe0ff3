import json
import re
import shutil
import sys
from types import SimpleNamespace

import pytest
from fairseq_cli import train
from omegaconf import OmegaConf

from fairseq_l2t.compat.early_stopping import patch_resume
from tests.compat.conftest import TINY_TRANSFORMER, TRAINING

# A student that learns nothing, validated every second update: --patience 2 ends it at update 6.
IDLE = [
    "--max-tokens",
    "200",
    "--lr",
    "1e-30",
    "--patience",
    "2",
    "--validate-interval-updates",
    "2",
    "--save-interval-updates",
    "2",
    "--validate-interval",
    "99",
    "--save-interval",
    "99",
    "--log-format",
    "json",
]
STOCK = """
from fairseq_cli import train
for where, name in ((train, "train"), (train.Trainer, "save_checkpoint"), (train.Trainer, "load_checkpoint")):
    setattr(where, name, getattr(where, name).__wrapped__)
train.cli_main()
"""


@pytest.mark.slow
def test_a_resumed_run_ends_where_an_uninterrupted_one_does(run_command, tmp_path, binarised_corpus):
    """Ended after two validations and resumed, it ends after the third; resumed again, it does nothing. Stock fairseq,
    the control, goes on for three further validations."""
    folder, stock = tmp_path / "patched", tmp_path / "stock"

    def validated(*program, save_dir=folder, max_update=40):
        options = [*TRAINING, *IDLE, "--max-update", max_update, "--save-dir", save_dir]
        output = run_command([*program, binarised_corpus, *TINY_TRANSFORMER, *options])
        lines = re.findall(r"\| valid \| (\{.*\})", output.stdout + output.stderr)
        return [int(json.loads(line)["valid_num_updates"]) for line in lines], output.stdout + output.stderr

    assert validated("fairseq-train", max_update=4)[0] == [2, 4]
    shutil.copytree(folder, stock)
    assert validated("fairseq-train")[0] == [6]
    updates, said = validated("fairseq-train")
    assert updates == [] and "nothing left to train: 2 validations without a better one, --patience 2" in said
    assert validated(sys.executable, "-c", STOCK, save_dir=stock)[0] == [6, 8, 10]


@pytest.fixture
def patched(monkeypatch):
    """A module that looks like fairseq_cli.train, patched, and what its own functions were called with."""
    seen = []

    class Trainer:
        def save_checkpoint(self, filename, extra_state):
            seen.append(extra_state)

        def load_checkpoint(self, filename, *options):
            return filename  # what a checkpoint holds

    module = SimpleNamespace(
        Trainer=Trainer, should_stop_early=lambda cfg, loss: False, train=lambda cfg, trainer, *rest: ([1.0], False)
    )
    patch_resume(module)
    return module, seen


def test_the_count_goes_into_checkpoints_and_comes_back(patched):
    module, seen = patched
    count, trainer = module.should_stop_early, module.Trainer()
    trainer.save_checkpoint("f", {"val_loss": 1.0})
    assert seen == [{"val_loss": 1.0}]  # before the first validation there is none
    count.best, count.num_runs = 7.5, 2
    trainer.save_checkpoint("f", {"val_loss": 1.0})
    assert seen[1] == {"val_loss": 1.0, "early_stopping": {"best": 7.5, "num_runs": 2}}
    count.best, count.num_runs = None, 0
    for options in ({"reset_optimizer": True}, {"reset_meters": True}):
        assert trainer.load_checkpoint(seen[1], **options) is seen[1] and count.num_runs == 0
    for other in (None, {"val_loss": 1.0}):  # none there, or one of stock fairseq
        assert trainer.load_checkpoint(other) is other and count.num_runs == 0
    assert trainer.load_checkpoint(seen[1]) is seen[1] and (count.best, count.num_runs) == (7.5, 2)


@pytest.mark.parametrize(
    ("updates", "max_update", "patience", "runs", "goes_on"),
    [
        (10, 10, -1, 0, False),
        (11, 10, -1, 0, False),
        (9, 10, -1, 9, True),
        (9, 0, -1, 9, True),
        (9, 10, 2, 2, False),
        (9, 10, 3, 2, True),
    ],
)
def test_what_had_ended_is_not_trained_on(patched, updates, max_update, patience, runs, goes_on):
    """A longer --max-update or --patience goes on."""
    module, _ = patched
    module.should_stop_early.num_runs = runs
    cfg = OmegaConf.create({"optimization": {"max_update": max_update}, "checkpoint": {"patience": patience}})
    found = module.train(cfg, SimpleNamespace(get_num_updates=lambda: updates), None, None)
    assert found == (([1.0], False) if goes_on else ([None], True))


def test_a_second_patch_changes_nothing():
    before = train.train, train.Trainer.save_checkpoint
    patch_resume(train)
    assert (train.train, train.Trainer.save_checkpoint) == before
