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
from fairseq.tasks.translation import TranslationTask
if os.environ.get("RESTORE") == "1":
    from fairseq_l2t.compat.task_state import restore_task_state
    restore_task_state()

@register_task("counting_translation")
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
@pytest.mark.parametrize(("restore", "first_count"), [("1", 3), ("0", 1)])
def test_resume_restores_task_state(
    run_command, tmp_path, monkeypatch, repository, binarised_corpus, restore, first_count
):
    """With the mend a resumed run counts on; the control shows that stock fairseq starts anew."""
    (tmp_path / "counting").mkdir()
    (tmp_path / "counting" / "__init__.py").write_text(COUNTING_TASK)
    monkeypatch.setenv("RESTORE", restore)
    command = ["fairseq-train", binarised_corpus, "--user-dir", tmp_path / "counting", *TINY_TRANSFORMER]
    command += [*TRAINING, "--task", "counting_translation", "--save-dir", tmp_path / "run", "--disable-validation"]
    counts = []
    for max_update in (2, 4):
        output = run_command([*command, "--max-update", max_update]).stdout
        counts.append([int(count) for count in re.findall(r"STEPS (\d+)", output)])
    assert counts == [[1, 2], [first_count, first_count + 1]]


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
