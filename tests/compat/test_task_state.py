import re

import pytest
import torch
from fairseq.trainer import Trainer

from fairseq_l2t.compat.task_state import restore_task_state
from tests.compat.conftest import TINY_TRANSFORMER, TRAINING

# A task whose state counts its training steps.
COUNTING_TASK = """
import os
from fairseq.tasks import register_task
from fairseq.tasks.translation import TranslationConfig, TranslationTask
if os.environ.get("RESTORE") == "1":
    from fairseq_l2t.compat.task_state import restore_task_state
    restore_task_state()

@register_task("counting_translation", dataclass=TranslationConfig)
class CountingTask(TranslationTask):
    def __init__(self, *args):
        super().__init__(*args)
        self.state.add_factory("steps", int)

    def train_step(self, *args, **kwargs):
        self.state.merge_state_dict({"steps": self.state.steps + 1})
        print("STEPS", self.state.steps, flush=True)
        return super().train_step(*args, **kwargs)
"""


@pytest.mark.slow
def test_resume_restores_task_state(run_command, tmp_path, monkeypatch, binarised_corpus):
    """With the patch a resumed run counts on; the control shows that stock fairseq starts anew."""
    (tmp_path / "counting").mkdir()
    (tmp_path / "counting" / "__init__.py").write_text(COUNTING_TASK)
    checkpoint = tmp_path / "first" / "checkpoint_last.pt"

    def counts(name, restore, max_update):
        monkeypatch.setenv("RESTORE", restore)
        options = ["--user-dir", tmp_path / "counting", *TRAINING, "--task", "counting_translation"]
        options += ["--disable-validation", "--max-update", max_update, "--save-dir", tmp_path / name]
        options += ["--restore-file", checkpoint]
        output = run_command(["fairseq-train", binarised_corpus, *TINY_TRANSFORMER, *options]).stdout
        return [int(count) for count in re.findall(r"STEPS (\d+)", output)]

    assert counts("first", "1", max_update=2) == [1, 2]
    assert counts("patched", "1", max_update=4) == [3, 4]
    assert counts("stock", "0", max_update=4) == [1, 2]


class _Task:
    loaded = None

    def load_state_dict(self, state):
        self.loaded = state


@pytest.fixture
def load(monkeypatch, tmp_path):
    """``load(state, found=True, **options)``: what the task is given when a checkpoint holding ``state`` is loaded."""
    found_states = []
    monkeypatch.setattr(
        Trainer, "load_checkpoint", lambda self, filename, *args, **kwargs: found_states[-1], raising=True
    )
    restore_task_state()

    def run(state, found=True, legacy=False, **options):
        path = tmp_path / "checkpoint.pt"
        if found:
            torch.save(state, path, _use_new_zipfile_serialization=not legacy)
        found_states.append({"train_iterator": {}} if found else None)
        trainer = Trainer.__new__(Trainer)
        trainer.task = _Task()
        assert trainer.load_checkpoint(str(path), **options) is found_states[-1]
        return trainer.task.loaded

    return run


def test_state_reaches_the_task(load):
    assert load({"task_state": {"steps": 7}}) == {"steps": 7}


def test_state_in_the_older_file_format_reaches_the_task(load):
    assert load({"task_state": {"steps": 7}}, legacy=True) == {"steps": 7}


@pytest.mark.parametrize("argument", [{"reset_optimizer": True}, {"found": False}])
def test_new_lives_start_with_a_new_state(load, argument):
    assert load({"task_state": {"steps": 7}}, **argument) is None


def test_checkpoints_without_task_state_are_accepted(load):
    assert load({"model": {}}) is None


def test_a_second_call_wraps_nothing(monkeypatch):
    monkeypatch.setattr(Trainer, "load_checkpoint", Trainer.load_checkpoint)
    restore_task_state()
    once = Trainer.load_checkpoint
    restore_task_state()
    assert Trainer.load_checkpoint is once
