"""A taught student's checkpoint in programs of stock fairseq that do not import the plugin."""

import argparse
import json
import re
from pathlib import Path

import pytest
import torch

import fairseq_l2t
from fairseq_l2t.plugin.stock_names import TAUGHT_WITH
from tests.end_to_end import preloaded, stock_programs
from tests.end_to_end.settings import MODEL, TRAINING, checkpoint
from tests.plugin.taught import symbols_of, write_teacher

PLUGIN = Path(fairseq_l2t.__file__).parent


@pytest.fixture(scope="module")
def student(data_bin, tmp_path_factory):
    """The working folder of a student of four updates, and its log."""
    folder = tmp_path_factory.mktemp("student")
    write_teacher(folder / "teacher.safetensors", symbols_of(data_bin))
    command = [data_bin, *MODEL, *TRAINING, "--max-update", "4", "--save-dir", "student", "--num-workers", "0"]
    command += ["--user-dir", PLUGIN, "--task", "l2t_dlf", "--criterion", "dynamic_teacher_loss"]
    command += ["--teacher-path", "teacher.safetensors", "--log-format", "json"]
    return folder, preloaded.run("fairseq-train", command, folder).stdout


def with_names_of_the_training(path, target):
    """Write the checkpoint with the task and criterion of its training, as stock fairseq would."""
    state = checkpoint(path)
    taught_with = state["extra_state"][TAUGHT_WITH]
    state["cfg"].update(task=taught_with["task"], criterion=taught_with["criterion"])
    state["cfg"]["model"].task = "l2t_dlf"
    target.parent.mkdir()
    torch.save(state, target)


@pytest.mark.slow
def test_programs_without_the_plugin(data_bin, student, tmp_path, repository, run_command):
    """In one process; the control is a checkpoint that names the plugin's task and criterion."""
    folder, log = student
    last = folder / "student" / stock_programs.FILE
    control = tmp_path / "control" / stock_programs.FILE
    with_names_of_the_training(last, control)
    command = ["python", "-m", "tests.end_to_end.stock_programs", data_bin, last.parent, control.parent]
    lines = run_command(command, cwd=repository).stdout.splitlines()
    found, refused = (json.loads(line) for line in lines if line.startswith('{"plugin"'))
    assert found.pop("plugin") == refused.pop("plugin") == []
    assert found["load"] == ["TranslationTask", "label_smoothed_cross_entropy"]
    assert len(found["hub"]) == 1
    assert found["convert"] == ["transformer", len(symbols_of(data_bin))]
    measures, sizes = found["build_criterion"], re.findall(r'"valid_(\w+)": "([\d.]+)"', log)
    logged = {name: float(value) for name, value in sizes}
    bits = measures["loss"] / measures["ntokens"] / torch.log(torch.tensor(2.0)).item()
    assert bits == pytest.approx(logged["loss"], abs=1e-3)
    assert measures["loss"] == measures["nll_loss"]
    assert 100 * measures["n_correct"] / measures["ntokens"] == pytest.approx(logged["accuracy"], abs=1e-2)
    assert all(str(result).startswith(("AssertionError", "KeyError")) for result in refused.values())


def test_what_the_checkpoint_keeps_of_its_training(student):
    folder, _ = student
    state = checkpoint(folder / "student" / stock_programs.FILE)
    taught_with = state["extra_state"][TAUGHT_WITH]
    assert taught_with["task"]["_name"] == "l2t_dlf"
    assert taught_with["task"]["teacher_path"] == "teacher.safetensors"
    assert taught_with["criterion"]["_name"] == "dynamic_teacher_loss"
    assert state["task_state"]["teaching"]
    assert isinstance(state["cfg"]["model"], argparse.Namespace)
    assert "teacher_path" not in vars(state["cfg"]["model"]) and "teacher_path" not in state["cfg"]["task"]
    assert state["cfg"]["model"].task == state["cfg"]["task"]["_name"] == "translation"
    assert state["cfg"]["optimization"]["max_update"] == vars(state["cfg"]["model"])["max_update"] == 4
