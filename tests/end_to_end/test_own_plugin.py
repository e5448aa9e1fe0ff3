"""A user's own plugin beside ours: the example of docs/train-a-student.md, given as ``--user-dir``."""

import pytest

from tests.docs.pages import blocks_of
from tests.end_to_end import preloaded
from tests.end_to_end.settings import MODEL, TRAINING, checkpoint, teacher_command

PAGE = "docs/train-a-student.md"


@pytest.fixture
def own_plugin(repository, tmp_path):
    (example,) = (block for block in blocks_of(repository, PAGE) if block.language == "python")
    folder = tmp_path / "my_plugin"
    folder.mkdir()
    (folder / "__init__.py").write_text(example.text, encoding="utf-8")
    return folder


@pytest.mark.slow
def test_a_task_and_an_architecture_beside_ours(data_bin, own_plugin, tmp_path, run_command):
    """The teacher's training uses the architecture, the student's training the task too, in a new interpreter."""
    own = ["--user-dir", own_plugin, "--arch", "my_transformer"]
    preloaded.run("l2t-train-teacher", teacher_command(data_bin, *own, "--teacher-updates", "1"), tmp_path / "work")
    command = [data_bin, *MODEL, *TRAINING, *own, "--max-epoch", "1", "--max-update", "60", "--save-dir", "student"]
    command += ["--task", "short_taught", "--criterion", "dynamic_teacher_loss", "--longest-target", "40"]
    command += ["--teacher-path", "run/teacher.safetensors", "--num-workers", "0"]
    run_command(["fairseq-train", *command], cwd=tmp_path / "work")
    state = checkpoint(tmp_path / "work" / "student" / "checkpoint_last.pt")
    assert state["cfg"]["task"]["_name"] == "short_taught"
    assert state["cfg"]["task"]["longest_target"] == 40
    assert state["task_state"]["teaching"]["measures"]
    updates = state["optimizer_history"][-1]["num_updates"]
    assert 0 < updates < 50  # an epoch of all 400 pairs in batches of 8 has 50 updates
