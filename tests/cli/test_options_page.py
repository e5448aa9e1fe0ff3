"""The options page of the documentation, and what importing options costs."""

from fairseq_l2t.classification.options import COMMANDS
from fairseq_l2t.cli.options_page import options_page
from fairseq_l2t.teaching.options.declaration import declared
from fairseq_l2t.teaching.options.translation_options import TranslationOptions


def test_every_option_stands_on_the_page_with_its_range():
    page = options_page()
    assert page == options_page()
    for options in (TranslationOptions, *(command.options for command in COMMANDS.values())):
        for one in declared(options).values():
            assert f"| `{one.flag}` | {one.option.help}" in page
            assert f"| {one.allowed} |" in page
    row = next(line for line in page.splitlines() if line.startswith("| `--teacher-lr` |"))
    assert row.endswith("| a number above 0 and at most 100 | 0.07 | 0.01 | 0.01 |")


def test_options_do_not_need_fairseq(run_command):
    modules = "fairseq_l2t.teaching.run, fairseq_l2t.teaching.options.presets, fairseq_l2t.classification.options"
    source = f"import sys, {modules}; print(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    loaded = set(run_command(["python", "-c", source]).stdout.split())
    assert "pydantic" in loaded and not loaded & {"fairseq", "hydra", "omegaconf"}
