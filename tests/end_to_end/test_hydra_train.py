"""``fairseq-hydra-train``: the student of docs/train-a-student.md from YAML, and the report of an error."""

import re

import pytest
import torch

import fairseq_l2t
from tests.end_to_end import preloaded
from tests.plugin.taught import symbols_of, write_teacher

PACKAGE = fairseq_l2t.__path__[0]
SMALL = {
    "model.encoder.layers": 1,
    "model.encoder.embed_dim": 16,
    "+model.encoder.ffn_embed_dim": 16,
    "model.decoder.layers": 1,
    "model.decoder.embed_dim": 16,
    "+model.decoder.ffn_embed_dim": 16,
    "lr_scheduler.warmup_updates": 2,
    "dataset.max_tokens": 400,
    "optimization.max_update": 3,
}
ON_THE_COMMAND_LINE = [
    *("--seed", "1", "--arch", "transformer_iwslt_de_en", "--dropout", "0.2", "--encoder-layers", "1"),
    *("--encoder-embed-dim", "16", "--decoder-layers", "1", "--decoder-embed-dim", "16"),
    *("--encoder-ffn-embed-dim", "16", "--decoder-ffn-embed-dim", "16"),
    *("--optimizer", "adam", "--adam-betas", "(0.9, 0.98)", "--lr-scheduler", "inverse_sqrt", "--warmup-updates", "2"),
    *("--max-tokens", "400", "--max-update", "3", "--save-interval-updates", "2", "--lr", "0.0005", "--cpu"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, data_bin, repository):
    """The YAML file of the page and a teacher."""
    folder = tmp_path_factory.mktemp("hydra")
    page = (repository / "docs" / "train-a-student.md").read_text(encoding="utf-8")
    (folder / "student.yaml").write_text(re.search(r"```yaml\n(.*?)```", page, re.DOTALL)[1])
    write_teacher(folder / "teacher.safetensors", symbols_of(data_bin))
    return folder


def from_yaml(folder, data_bin, work, *more, expect=0):
    overrides = [f"common.user_dir={PACKAGE}", "common.cpu=true", f"task.data={data_bin}", f"hydra.run.dir={work}"]
    overrides += [f"{name}={value}" for name, value in SMALL.items()]
    overrides += [f"task.teacher_path={folder / 'teacher.safetensors'}", *more]
    arguments = ["--config-dir", folder, "--config-name", "student", *overrides]
    return preloaded.run("fairseq-hydra-train", arguments, work, expect)


def test_yaml_trains_the_student_of_the_command_line(folder, data_bin, tmp_path):
    """Weights and the student's state are equal to the bit; an earlier checkpoint is the control."""

    def checkpoint(path):
        state = torch.load(path, weights_only=True)
        # fairseq stores an uninitialised tensor of one number.
        weights = {name: tensor for name, tensor in state["model"].items() if not name.endswith("_float_tensor")}
        return weights, state["task_state"], vars(state["cfg"]["model"])

    from_yaml(folder, data_bin, tmp_path / "yaml", "checkpoint.save_interval_updates=2")
    last, earlier = (tmp_path / "yaml" / "checkpoints" / name for name in ("checkpoint_last.pt", "checkpoint_1_2.pt"))
    taught = ["--user-dir", PACKAGE, "--task", "l2t_dlf", "--criterion", "dynamic_teacher_loss"]
    taught += ["--teacher-path", folder / "teacher.safetensors", "--save-dir", tmp_path / "same"]
    preloaded.run("fairseq-train", [data_bin, *taught, *ON_THE_COMMAND_LINE], tmp_path / "command_line")
    weights, state, options = checkpoint(tmp_path / "same" / "checkpoint_last.pt")
    for path, is_equal in ((last, True), (earlier, False)):
        found, found_state, model = checkpoint(path)
        assert all(weights[name].equal(found[name]) for name in weights) == is_equal
        assert (state == found_state) == is_equal
        assert weights.keys() == found.keys() and model.items() <= options.items()


def test_an_error_is_reported(folder, data_bin, tmp_path):
    absent = tmp_path / "absent.safetensors"
    ended = from_yaml(folder, data_bin, tmp_path / "work", f"task.teacher_path={absent}", expect=1)
    assert f"TeacherFileError: {absent}: No such file" in ended.stderr and "etype" not in ended.stderr
    ended = from_yaml(folder, data_bin, tmp_path / "work", "+model.encoder_layer=2", expect=1)
    assert "ValueError: model.encoder_layer: not an option of transformer_iwslt_de_en; expected one of" in ended.stderr
