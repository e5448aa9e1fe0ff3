"""``l2t-doctor`` at the command line: a line a check, exit codes, and the quick form in the trainer's log."""

import re

import pytest

from tests.end_to_end import preloaded
from tests.end_to_end.settings import teacher_command

PLUGIN = """
import torch
from fairseq.models import register_model_architecture
from fairseq.models.transformer import TransformerModel, base_architecture
from fairseq.models import register_model


class WrongTwice(torch.autograd.Function):
    @staticmethod
    def forward(ctx, value):
        ctx.save_for_backward(value)
        return value + 0.1 * value**2

    @staticmethod
    def backward(ctx, cotangent):
        return cotangent * (1 + 0.2 * ctx.saved_tensors[0].detach())


class Bend(torch.nn.Module):
    def forward(self, value):
        return WrongTwice.apply(value)


@register_model("bent")
class BentTransformer(TransformerModel):
    @classmethod
    def build_model(cls, args, task):
        model = super().build_model(args, task)
        model.decoder.layers[0].activation_fn = Bend()
        return model


@register_model_architecture("bent", "bent")
def bent(args):
    base_architecture(args)
"""


@pytest.fixture
def bent(tmp_path):
    """A --user-dir with an architecture whose second derivatives are silently wrong, and the options that take it."""
    folder = tmp_path / "bent_plugin"
    folder.mkdir()
    (folder / "__init__.py").write_text(PLUGIN, encoding="utf-8")
    return ["--user-dir", folder, "--arch", "bent"]


def test_a_sound_student(data_bin, tmp_path, run_command):
    result = run_command(["l2t-doctor", *teacher_command(data_bin)], cwd=tmp_path)
    *checks, last = result.stdout.splitlines()
    assert len(checks) > 8 and all(line.startswith("ok    ") for line in checks)
    assert re.fullmatch(rf"0 of {len(checks)} checks failed, \d+ s: hypergradients of this student are correct", last)
    assert list(tmp_path.iterdir()) == []


def test_a_module_that_is_wrong(data_bin, tmp_path, bent):
    ended = preloaded.run("l2t-doctor", teacher_command(data_bin, *bent), tmp_path / "work", expect=1)
    failed = [line for line in ended.stdout.splitlines() if line.startswith("FAIL")]
    names = ["bent_plugin.BentTransformer", "bent_plugin.Bend"]
    for name in names:
        line = next(line for line in failed if f"module {name}" in line)
        assert line.endswith(f"remedy: if the checks below pass, --trust-module {name}")
    assert any("second derivatives, decoder" in line and "remedy" in line for line in failed)
    assert ended.stdout.splitlines()[-1].endswith("hypergradients of this student are wrong")

    ended = preloaded.run("l2t-train-teacher", teacher_command(data_bin, *bent), tmp_path / "work", expect=2)
    assert "decoder.layers.0.activation_fn (bent_plugin.Bend)" in ended.stderr
    trust = [part for name in names for part in ("--trust-module", name)]
    ended = preloaded.run("l2t-train-teacher", teacher_command(data_bin, *bent, *trust), tmp_path / "work", expect=2)
    assert "error: hypergradients are wrong (l2t-doctor prints the details): FAIL  second derivatives" in ended.stderr
    assert not list((tmp_path / "work").rglob("*.safetensors"))
    skipped = teacher_command(data_bin, *bent, *trust, "--skip-quick-check")
    ended = preloaded.run("l2t-train-teacher", skipped, tmp_path / "work")
    assert (
        "--skip-quick-check: this student's hypergradients were not verified" in ended.stdout
        and "quick check: ok" not in ended.stdout
    )


def test_bad_input(data_bin, tmp_path):
    for more, message in (
        (["--optimizer", "adamax"], "--optimizer: adamax"),
        (["--lr", "0"], "--lr: 0.0; expected one value or more, separated by commas, each a number above 0"),
        (["--teacher-kyes", "3"], "unrecognized arguments: --teacher-kyes 3"),
    ):
        ended = preloaded.run("l2t-doctor", teacher_command(data_bin, *more), tmp_path, expect=2)
        assert ended.stderr.splitlines()[-1].startswith(f"l2t-doctor: error: {message}")
    ended = preloaded.run("l2t-doctor", [tmp_path / "nowhere", *teacher_command(data_bin)[1:]], tmp_path, expect=2)
    assert "data: " in ended.stderr.splitlines()[-1]


def test_the_trainer_runs_the_quick_form(uninterrupted):
    log = next((uninterrupted.parent / f"{uninterrupted.name}.output").glob("*.out")).read_text("utf-8")
    assert re.search(r"quick check: ok +update by adam", log)
    assert re.search(r"quick check: ok +second derivatives, all modules", log)
