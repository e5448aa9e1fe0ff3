"""Options from command lines and files, and the help that is made of them."""

import dataclasses
import re

import pytest

from fairseq_l2t.classification.options import TrainOptions, TrainTeacherOptions
from fairseq_l2t.teaching.options.command_line import Command, options_parser, parse_command, parse_options
from fairseq_l2t.teaching.options.config_file import file_values, read_config, write_config
from fairseq_l2t.teaching.options.declaration import OptionError, declared
from fairseq_l2t.teaching.options.presets import PRESETS, TRANSLATION_PRESETS
from fairseq_l2t.teaching.options.translation_options import TranslationOptions
from fairseq_l2t.teaching.plan import resolve

OURS = {name: PRESETS[name] for name in TRANSLATION_PRESETS}


def parse(*arguments):
    return parse_options(TranslationOptions, arguments, OURS, "whole-life")


def config(folder, text):
    path = folder / "config.yaml"
    path.write_text(text, encoding="utf-8")
    return "--config", str(path)


def test_a_preset_gives_what_is_not_given():
    for name in OURS:
        given = parse("--preset", name)
        assert given.names == {"preset"}
        assert all(
            getattr(given.options, field.name) == getattr(OURS[name], field.name)
            for field in dataclasses.fields(OURS[name])
        )
    assert parse().options == dataclasses.replace(parse("--preset", "whole-life").options)
    assert parse("--teacher-lr", "0.5", "--teacher-lr=0.25").options.teacher_lr == 0.25


def test_other_arguments_are_left_in_order():
    given = parse("data", "--arch", "lstm", "--teacher-keys", "3", "--lr=0.1", "--keep-graphs", "-s", "de")
    assert given.rest == ["data", "--arch", "lstm", "--lr=0.1", "-s", "de"]
    assert given.names == {"teacher_keys", "keep_graphs"}
    assert parse("--teacher-key", "3").rest == ["--teacher-key", "3"]  # no abbreviations


def test_lists_and_flags():
    given = parse("--trust-module", "a.B", "--trust-module=c.D", "data", "--keep-graphs", "--no-keep-graphs").options
    assert given.trust_module == ("a.B", "c.D") and given.keep_graphs is False


@pytest.mark.parametrize("arguments", [("--teacher-keys",), ("--teacher-keys", "0"), ("--resume=yes",)])
def test_refused(arguments):
    with pytest.raises(OptionError, match=arguments[0].partition("=")[0]):
        parse(*arguments)


def test_the_command_line_overrides_a_file_which_overrides_a_preset(tmp_path):
    text = "preset: short-windows\nteacher-lr: 0.5\nteacher_keys: 7\nkeep-graphs: true\ntrust-module: [a.B, c.D]\n"
    text += "lr: [0.1]\nfp16: true\n"
    given = parse(
        *config(tmp_path, text + "memory-budget: null\nno-epoch-checkpoints: false\n"),
        "data",
        "--teacher-keys",
        "2",
        "--no-keep-graphs",
    )
    options = given.options
    assert (options.preset, options.objective, options.teacher_lr, options.teacher_keys) == (
        "short-windows",
        "likelihood",
        0.5,
        2,
    )
    assert (options.keep_graphs, options.trust_module, options.memory_budget) == (False, ("a.B", "c.D"), None)
    assert given.rest == ["--lr=[0.1]", "--fp16", "data"]
    assert given.names == {"config", "preset", "teacher_lr", "teacher_keys", "keep_graphs", "trust_module"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("teacher-lr: 1\nteacher-lr: 2\n", "line 2: teacher-lr is given twice"),
        ("teacher-lr: 1\nteacher_lr: 2\n", "teacher_lr is given twice"),
        ("- teacher-lr\n", "expected options by name"),
        ("teacher-lr: {a: 1}\n", "teacher-lr: .*; expected a single value or a list"),
        ("config: other.yaml\n", "config; expected a file that does not name another one"),
        ("resume: 3\n", "resume: 3; expected true or false"),
        ("teacher-lr: true\n", "teacher-lr: True; expected a number above 0 and at most 100"),
        ("a: b: c\n", "line 1: mapping values are not allowed here"),
        ("teacher-lr: !!python/object/apply:os.system [ls]\n", "could not determine a constructor"),
        ("teacher-keys: 0\n", "^--config: .*config.yaml: --teacher-keys: 0; expected a whole number of at least 1"),
    ],
)
def test_files_that_are_refused(tmp_path, text, message):
    with pytest.raises(OptionError, match=message) as raised:
        parse(*config(tmp_path, text))
    assert "\n" not in str(raised.value)


def test_a_file_that_is_absent():
    with pytest.raises(OptionError, match="^--config: none.yaml: No such file or directory; expected a YAML file$"):
        parse("--config", "none.yaml")


def test_language_codes_are_no_truth_values(tmp_path):
    assert read_config(config(tmp_path, "source-lang: no\ntarget-lang: on\nfp16: false\n")[1]) == {
        "source_lang": "no",
        "target_lang": "on",
        "fp16": False,
    }


def test_what_is_written_is_read_again(tmp_path):
    options = parse("--teacher-lr", "1e-5", "--trust-module", "a.B", "--student-init", "no", "--keep-graphs").options
    write_config(tmp_path, file_values(options))
    again = parse("--config", str(tmp_path / "options.yaml"), "--preset", "whole-life")
    assert dataclasses.replace(again.options, config=None) == options
    other = parse("--config", str(tmp_path / "options.yaml"), "--teacher-lr", "2")
    assert other.options.teacher_lr == 2.0 and other.options.trust_module == ("a.B",)


def test_every_option_has_its_range_and_its_defaults_in_the_help():
    told = " ".join(options_parser(TranslationOptions, OURS).format_help().split())
    for one in declared(TranslationOptions).values():
        assert one.flag in told and one.option.help.split(" (")[0] in told.replace("- ", "-"), one.name
    assert "--teacher-lr LR learning rate" in told
    assert "(a number above 0 and at most 100; default: whole-life 0.07, paper 0.01, short-windows 0.01)" in told
    assert "default: whole-life all windows of 8 lives, paper 100, short-windows 100" in told


def test_subcommands(tmp_path):
    commands = {"teach": Command(TranslationOptions, "teach", {"short-windows": OURS["short-windows"]})}

    def command(*arguments):
        return parse_command("program", "what it does", commands, ["teach", *arguments])

    name, given = command(*config(tmp_path, "teacher-lr: 0.5\nsamples: 3\n"), "--samples", "4")
    assert (name, given.options.teacher_lr, given.options.samples, given.options.objective) == (
        "teach",
        0.5,
        4,
        "likelihood",
    )
    with pytest.raises(OptionError, match=r"unrecognized arguments: --samplse 4; did you mean --samples\?$"):
        command("--samplse", "4")
    with pytest.raises(OptionError, match=r"samplse; not an option of program teach; did you mean samples\?$"):
        command(*config(tmp_path, "samplse: 4\n"))
    with pytest.raises(OptionError, match="invalid choice: 'taech'"):
        parse_command("program", "what it does", commands, ["taech"])


def test_a_value_of_the_command_line_is_not_blamed_on_the_file(tmp_path):
    file = config(tmp_path, "teacher-lr: 0\ntotal-updates: 5\ncross-entropy-updates: 7\n")
    with pytest.raises(OptionError, match=r"^--config: .*config.yaml: --teacher-lr: 0; expected"):
        parse(*file)
    with pytest.raises(OptionError, match="^--teacher-lr: -1; expected"):
        parse(*file, "--teacher-lr=-1")
    given = parse(*file, "--teacher-lr", "1")
    with pytest.raises(OptionError, match="^--config: .*: --cross-entropy-updates"), given.naming_file([]):
        resolve(given.options, given.names)
    with pytest.raises(OptionError, match="^--cross-entropy"), given.naming_file(["--cross-entropy-updates=7"]):
        resolve(given.options, given.names)


@pytest.mark.parametrize("options", [TranslationOptions, TrainTeacherOptions, TrainOptions])
def test_every_number_has_a_range_that_the_help_tells(options):
    told = " ".join(options_parser(options, {}).format_help().split())
    numbers = [one for one in declared(options).values() if one.annotation in (int, float)]
    assert len(numbers) > 10
    for one in numbers:
        assert re.search(r"(at least|above|from) .*(at most|below|to) ", f"{one.allowed} "), (
            f"{one.name}: {one.allowed}"
        )
        assert one.allowed in told
        for value in (1e30, -1e30, float("nan")):
            with pytest.raises(OptionError, match=f"^{one.flag}: .*; expected {re.escape(one.allowed)}"):
                options(**{"save_dir": "d", one.name: value})


def test_a_pair_is_given_as_fairseq_gives_it(tmp_path):
    options = parse("--teacher-adam-betas", "(0.8, 0.95)").options
    assert options.teacher_adam_betas == (0.8, 0.95)
    assert parse().options.teacher_adam_betas == (0.9, 0.999)
    write_config(tmp_path, file_values(options))
    assert parse("--config", str(tmp_path / "options.yaml")).options.teacher_adam_betas == (0.8, 0.95)
    with pytest.raises(OptionError, match="--teacher-adam-betas: 0.9; expected 2 values in parentheses"):
        parse("--teacher-adam-betas", "0.9")
