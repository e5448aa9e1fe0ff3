"""What the ``.pth`` file does in this environment, and fairseq's own commands under it."""

import json

import pytest


def loaded_modules(run_command, source, *options):
    program = f"import json, sys\n{source}\nprint(json.dumps(sorted(sys.modules)))"
    return set(json.loads(run_command(["python", *options, "-c", program], cwd="/").stdout))


def test_every_interpreter_has_the_hook_and_nothing_else(run_command):
    without = loaded_modules(run_command, "", "-S")
    added = loaded_modules(run_command, "") - without
    assert "_fairseq_l2t_startup" in added
    assert not {name.partition(".")[0] for name in added} & {"fairseq_l2t", "fairseq", "hydra", "torch", "dataclasses"}


def test_fairseq_imports_and_leaves_our_name_free(run_command):
    """``--user-dir fairseq_l2t`` needs that name. A module looked up before it is imported is patched all the same."""
    source = """
import importlib.util, sys
from importlib.machinery import SourceFileLoader
importlib.util.find_spec("fairseq.modules.transformer_layer")
import fairseq.modules.transformer_layer as module
print(hasattr(module.TransformerEncoderLayerBase.__init__, "fairseq_l2t_without_fast_path"))
print(type(module.__loader__) is type(module.__spec__.loader) is SourceFileLoader)
print([name for name in sys.modules if name.partition(".")[0] == "fairseq_l2t"])
"""
    assert run_command(["python", "-c", source], cwd="/").stdout.split() == ["True", "True", "[]"]


def test_the_plugin_registers_in_either_order(run_command):
    """Two interpreters: what is registered stays. The control is fairseq alone."""
    look = "from fairseq.tasks import TASK_REGISTRY; print('l2t_dlf' in TASK_REGISTRY)"
    for source, expected in (
        (f"import fairseq_l2t, sys; print('fairseq' in sys.modules); {look}", ["False", "True"]),
        (f"{look}; import fairseq_l2t; {look}", ["False", "True"]),
    ):
        assert run_command(["python", "-c", source], cwd="/").stdout.split() == expected


def test_a_command_runs_as_a_module(run_command):
    """``python -m`` asks the loader for code; what runs is patched, as the console script is."""
    assert "--max-update" in run_command(["python", "-m", "fairseq_cli.train", "--help"]).stdout


def test_pytest_starts(run_command, tmp_path):
    (tmp_path / "test_nothing.py").write_text("def test_nothing():\n    pass\n")
    result = run_command(["python", "-m", "pytest", "-q", "--rootdir", tmp_path, tmp_path], cwd=tmp_path)
    assert "1 passed" in result.stdout


def test_pth_line_is_silent_without_the_package(run_command, repository):
    """A clone installed with ``pip install -e`` and then deleted must not greet every start with an error."""
    namespace = {}
    source = (repository / "setup.py").read_text().partition("\nclass ")[0]
    exec(source.replace("from setuptools", "# from setuptools"), {"__file__": str(repository)}, namespace)
    line = namespace["_STARTUP_LINE"]
    assert line.startswith("import ") and line.count("\n") == 1
    result = run_command(["python", "-I", "-S", "-c", line])
    assert (result.stdout, result.stderr) == ("", "")


@pytest.mark.slow
def test_fairseq_commands_work(run_command, binarised_corpus, trained):
    """Preprocess and train have run to make the fixtures; here: resume, generate on padded batches, interactive."""
    from tests.compat.conftest import TINY_TRANSFORMER, TRAINING

    resumed = run_command(
        ["fairseq-train", binarised_corpus, "--save-dir", trained, "--max-update", "5", *TINY_TRANSFORMER, *TRAINING]
    )
    assert "@ 3 updates" in resumed.stdout + resumed.stderr
    assert list((trained / "tensorboard").rglob("events.out.tfevents.*"))

    model = ["--path", trained / "checkpoint_last.pt", "--beam", "2", "--max-len-b", "10", "--cpu"]
    generated = run_command(["fairseq-generate", binarised_corpus, "--scoring", "sacrebleu", *model])
    assert sum(line.startswith("H-") for line in generated.stdout.splitlines()) == 8
    assert "BLEU = " in generated.stdout

    translated = run_command(["fairseq-interactive", binarised_corpus, *model], input="a b c\n")
    assert "H-0" in translated.stdout
