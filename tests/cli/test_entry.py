"""What all commands share: ``--version``, ``--help``, and signals that arrive outside of updates."""

import importlib
import signal
import sys

import pytest

import fairseq_l2t
from fairseq_l2t.cli.entry import run_command

COMMANDS = {
    "l2t-train-teacher": ("fairseq_l2t.cli.train_teacher", []),
    "l2t-doctor": ("fairseq_l2t.cli.doctor", []),
    "l2t-inspect": ("fairseq_l2t.cli.inspect", []),
    "l2t-compare": ("fairseq_l2t.cli.compare", []),
    "l2t-classify": ("fairseq_l2t.cli.classify", []),
    "l2t-classify train": ("fairseq_l2t.cli.classify", ["train"]),
    "experiments": ("experiments.__main__", []),
}


def shown(name, option, capsys):
    module, before = COMMANDS[name]
    try:
        code = importlib.import_module(module).main([*before, option])
    except SystemExit as ended:
        code = ended.code
    assert code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_tells_its_version(name, capsys):
    assert shown(name, "--version", capsys) == f"{name.split()[0]} (fairseq_l2t {fairseq_l2t.__version__})\n"


@pytest.mark.parametrize("name", ["l2t-train-teacher", "l2t-doctor"])
def test_help_is_of_our_options_and_does_not_wait_for_fairseq(name, capsys, monkeypatch):
    for module in [module for module in sys.modules if module.split(".")[0] == "fairseq"]:
        monkeypatch.setitem(sys.modules, module, None)  # importing it raises ImportError
    text = shown(name, "--help", capsys)
    assert text.startswith(f"usage: {name} DATA_BIN [option ...]\n")
    assert "--teacher-lr LR" in text and "--help-all" in text and "--required-batch-size-multiple" not in text


def test_help_all_has_the_options_of_fairseq_too_after_ours(capsys):
    text = shown("l2t-train-teacher", "--help-all", capsys)
    assert 0 < text.index("--teacher-lr LR") < text.index("--required-batch-size-multiple")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_outside_of_an_update_is_answered(number, capsys):
    before = signal.signal(signal.SIGINT, signal.default_int_handler), signal.getsignal(signal.SIGTERM)
    try:
        assert run_command("it", lambda arguments: signal.raise_signal(number), []) == 128 + number
        assert signal.getsignal(signal.SIGTERM) == before[1]
    finally:
        signal.signal(signal.SIGINT, before[0])
    assert capsys.readouterr().err == f"it: stopped by {number.name} outside of an update\n"
