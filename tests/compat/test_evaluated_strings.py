"""Text that stock fairseq evaluates: values stay the same, and no code in it runs."""

import argparse
import dataclasses
import importlib
import re
from pathlib import Path

import fairseq
import fairseq_cli
import pytest
import torch
from fairseq import checkpoint_utils, models, tasks
from fairseq.models import fconv
from fairseq.registry import REGISTRIES
from omegaconf import OmegaConf

from fairseq_l2t.compat.checkpoint_types import patch_torch_load
from fairseq_l2t.compat.evaluated_strings import literal_value
from fairseq_l2t.testing.fairseq_reference import configuration
from fairseq_l2t.testing.tiny_students import FAMILIES

EVALUATING = re.compile(r"(?<![\w.])eval\(")


def evaluating_modules():
    """The names of all modules of fairseq and its commands that call ``eval``, its examples apart."""
    for package in (fairseq, fairseq_cli):
        root = Path(package.__file__).parent
        for path in sorted(root.rglob("*.py")):
            parts = path.relative_to(root.parent).with_suffix("").parts
            if "examples" not in parts and EVALUATING.search(path.read_text()):
                yield ".".join(parts)


@pytest.fixture
def save_fconv(data_bin, tmp_path):
    """``save_fconv(text)``: a checkpoint of a small fconv whose encoder_layers is ``text``; its path."""
    patch_torch_load(checkpoint_utils)  # again: tests of its types take them back
    cfg = configuration([str(data_bin), *FAMILIES["fconv"], "--cpu"])
    task = tasks.setup_task(cfg.task)
    state = {"model": task.build_model(cfg.model).state_dict(), "extra_state": {}, "optimizer_history": [{}]}

    def save(text):
        state["cfg"] = OmegaConf.to_container(cfg)
        state["cfg"]["model"].encoder_layers = text
        state["optimizer_history"] = [{"criterion_name": "x", "num_updates": 0, "lr_scheduler_state": {}}]
        torch.save(state, tmp_path / "checkpoint.pt")
        return str(tmp_path / "checkpoint.pt")

    return save


def test_a_checkpoint_runs_no_code(save_fconv, tmp_path, monkeypatch):
    """The file is plain data, so ``weights_only=True`` accepts it. Control: stock fairseq runs what it says."""
    victim = tmp_path / "victim"
    attack = f"[__import__('os').mkdir({str(victim)!r}) or (16, 3)] * 2"
    assert len(checkpoint_utils.load_model_ensemble([save_fconv("[(16, 3)] * 2")])[0]) == 1
    with pytest.raises(ValueError, match="is not a literal; expected a literal such as"):
        checkpoint_utils.load_model_ensemble([save_fconv(attack)])
    assert not victim.exists()
    monkeypatch.delattr(fconv, "eval")
    checkpoint_utils.load_model_ensemble([save_fconv(attack)])
    assert victim.exists()


def test_every_module_that_evaluates_is_patched():
    found = {name: vars(importlib.import_module(name))["eval"] for name in evaluating_modules()}
    assert {"fairseq.models.fconv", "fairseq.optim.adam", "fairseq.utils", "fairseq_cli.validate"} <= found.keys()
    assert {function.__name__ for function in found.values()} == {"literal_value"}
    assert not hasattr(importlib.import_module("fairseq.models.lstm"), "eval")  # it calls none


def test_the_examples_of_fairseq_are_patched(tmp_path, monkeypatch):
    """``--user-dir`` imports them under names of their own. Control: the same file elsewhere."""
    found = []
    for folder in ("fairseq/examples", "elsewhere"):
        package = f"l2t_{folder[-4:]}"
        (tmp_path / folder / package).mkdir(parents=True)
        (tmp_path / folder / package / "__init__.py").write_text("")
        (tmp_path / folder / package / "model.py").write_text("def layers(text):\n    return eval(text)\n")
        monkeypatch.syspath_prepend(tmp_path / folder)
        found.append("eval" in vars(importlib.import_module(f"{package}.model")))
    assert found == [True, False]


@pytest.mark.parametrize("function", ["eval_str_list", "eval_bool", "eval_str_dict"])
def test_options_run_no_code(function, tmp_path):
    victim = tmp_path / "victim"
    with pytest.raises(ValueError, match="code in options and checkpoints is not executed"):
        getattr(fairseq.utils, function)(f"open({str(victim)!r}, 'w')")
    assert not victim.exists()


def defaults_of(kind):
    parser = argparse.ArgumentParser(argument_default=argparse.SUPPRESS, conflict_handler="resolve")
    kind.add_args(parser)
    defaults = {action.dest: action.default for action in parser._actions if action.default != argparse.SUPPRESS}
    return argparse.Namespace(**defaults)


def default_texts():
    """Every default of an architecture, task, criterion, optimizer or schedule of fairseq that is a text."""
    settings = []
    for name, model in models.ARCH_MODEL_REGISTRY.items():
        given = defaults_of(model)
        models.ARCH_CONFIG_REGISTRY[name](given)
        settings.append(vars(given))
    for registry in REGISTRIES.values():
        settings += [vars(defaults_of(kind)) for kind in registry["registry"].values() if hasattr(kind, "add_args")]
    classes = [*tasks.TASK_DATACLASS_REGISTRY.values(), *models.MODEL_DATACLASS_REGISTRY.values()]
    classes += [kind for registry in REGISTRIES.values() for kind in registry["dataclass_registry"].values()]
    settings += [{field.name: field.default for field in dataclasses.fields(kind)} for kind in classes if kind]
    return {value for values in settings for value in values.values() if isinstance(value, str)}


def test_the_defaults_of_all_architectures_keep_their_values():
    assert len(models.ARCH_MODEL_REGISTRY) >= 136
    evaluated = {}
    for text in default_texts():
        try:
            value = eval(text, {"__builtins__": {}})
        except (NameError, SyntaxError):
            continue  # a word, such as relu
        evaluated[text] = value
        assert repr(literal_value(text)) == repr(value)
    assert sum(isinstance(value, list) for value in evaluated.values()) >= 8
    assert {"(0.9, 0.999)", "(1e-30, 1e-3)", "True"} <= evaluated.keys()


@pytest.mark.parametrize(
    "text",
    [
        "[(512, 3)] * 20",
        "[(512, 3)] * 9 + [(1024, 3)] * 4 + [(2048, 1)] * 2",
        "2 * [(1, 2)]",
        "((32, 3, 2, 2, False),) * 2 + ((1,),)",
        "(0.9, 1 - 1e-3)",
        " (1e-30, 1e-3)",
        "-1e-3 / 4",
        "+3",
        "1e-3, 2e-3",
        "True",
        "None",
        "[]",
        "{'data': 'a b', 'max_tokens': 7}",
        "{1, 2}",
        "'text'",
        "[[True, False], None]",
    ],
)
def test_literals_have_the_value_of_eval(text):
    assert repr(literal_value(text)) == repr(eval(text))


@pytest.mark.parametrize(
    "text",
    [
        "print(1)",
        "__import__('os').system('true')",
        "os",
        "().__class__",
        "[x for x in (1,)]",
        "lambda: 0",
        "[1][0]",
        "f'{1}'",
        "{**{}}",
        "[*[1]]",
        "(x := 1)",
        "1 if True else 2",
        "not 1",
        "9 ** 9",
        "1 // 0",
        "1 / 0",
        "10 ** 400 * 1.0",
        "'a' * 3",
        "[1] + (2,)",
        "-[1]",
        "[0] * 10_001",
        "[0] * 1.5",
        "{[]: 1}",
        "",
        "1; 2",
        "import os",
        "\0",
        "(" * 100_000,
        "-" * 100_000 + "1",
        "9" * 5000,
    ],
)
def test_everything_else_is_refused_in_one_line(text):
    with pytest.raises(ValueError) as caught:
        literal_value(text)
    message = str(caught.value)
    assert message.endswith("code in options and checkpoints is not executed")
    assert "\n" not in message and len(message) < 500


@pytest.mark.parametrize("value", [True, None, 3, b"1", [1]])
def test_other_types_are_refused_as_by_eval(value):
    """fairseq's ``eval_bool`` returns its default for them."""
    with pytest.raises(TypeError):
        literal_value(value)
    assert fairseq.utils.eval_bool(value, default="default") == "default"
