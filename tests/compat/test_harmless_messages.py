"""Messages of the libraries that our commands do not print, and which messages they are."""

import logging
import sys
import warnings

import pytest
import torch
from fairseq.data import Dictionary
from fairseq.modules import LinearizedConvolution

from fairseq_l2t.compat.harmless_messages import HARMLESS_WARNINGS, silence_harmless_messages


@pytest.mark.slow
def test_a_command_prints_no_message_of_the_libraries(run_command):
    """``--help``, the first thing a user sees; the control imports the same without the command."""
    source = "import fairseq_l2t.plugin.teacher_run_options"
    assert (
        "tensorboardX"
        in run_command(["python", "-c", "import logging; logging.basicConfig(level=20); " + source]).stderr
    )
    shown = run_command(["l2t-train-teacher", "--help"])
    assert shown.stdout.startswith("usage: l2t-train-teacher") and not shown.stderr


@pytest.fixture
def own_settings():
    """The filters of warnings and loggers are put back afterwards."""
    logger = logging.getLogger("fairseq.tasks.text_to_speech")
    before = list(logger.filters)
    with warnings.catch_warnings():
        yield logger
    logger.filters[:] = before


def provoked():
    """What PyTorch says to calls that fairseq makes, by the names of the table."""
    dictionary = Dictionary()
    convolution = LinearizedConvolution(len(dictionary), 4, 3)
    yield "weight_norm", lambda: torch.nn.utils.weight_norm(torch.nn.Linear(2, 2))
    yield "state_dict", lambda: torch.nn.Linear(2, 2).state_dict({}, "")
    yield "autocast", lambda: torch.cuda.amp.autocast(enabled=False)
    yield "backward_hooks", lambda: convolution(torch.ones(4, 1, 4, requires_grad=True))
    boolean, number = torch.zeros(1, 2, dtype=torch.bool), torch.zeros(2, 2)
    attention = torch.nn.MultiheadAttention(4, 2)
    x = torch.ones(2, 1, 4)
    yield "masks", lambda: attention(x, x, x, key_padding_mask=boolean, attn_mask=number)
    if not torch.accelerator.is_available():
        yield "pin_memory", lambda: next(iter(torch.utils.data.DataLoader([1], pin_memory=True)))


def test_each_named_warning_occurs_and_is_silenced(own_settings, monkeypatch):
    """The table names what PyTorch says now; another warning of the same category is shown."""
    monkeypatch.setattr(sys, "warnoptions", [])
    names = set()
    for name, call in provoked():
        category, beginning = HARMLESS_WARNINGS[name]
        with pytest.warns(category, match=beginning):
            call()
        with warnings.catch_warnings(record=True) as shown:
            warnings.simplefilter("always")
            silence_harmless_messages()
            call()
            warnings.warn("another", category, stacklevel=1)
        assert [str(warning.message) for warning in shown] == ["another"], name
        names.add(name)
    assert HARMLESS_WARNINGS.keys() - names <= {"pin_memory"}


def test_a_user_who_asks_for_warnings_gets_them(own_settings, monkeypatch):
    monkeypatch.setattr(sys, "warnoptions", ["always"])
    with pytest.warns(FutureWarning, match="weight_norm"):
        silence_harmless_messages()
        torch.nn.utils.weight_norm(torch.nn.Linear(2, 2))


def test_other_lines_of_the_same_logger_are_shown(own_settings, caplog):
    silence_harmless_messages()
    with caplog.at_level(logging.INFO):
        own_settings.info("Please install tensorboardX: pip install tensorboardX")
        own_settings.info("another")
    assert caplog.messages == ["another"]


def test_only_commands_silence_warnings():
    """This process has imported the package; a command has not run in this test."""
    texts = [entry[1].pattern for entry in warnings.filters if entry[1] is not None]
    assert not {beginning for _, beginning in HARMLESS_WARNINGS.values()} & set(texts)
