"""The recipe: same options for every student, hypotheses in order, clear errors. It is run whole by `make demo`."""

import json
import os
import subprocess
import sys
from argparse import Namespace

import pytest

from experiments.__main__ import main
from experiments.commands.recipe import RECIPES, chosen_recipe
from experiments.plan.command_lines import hypotheses_in_order
from experiments.plan.setting import settings_of
from experiments.plan.translation import Experiment
from tests.experiments.finished_runs import compare_all, finish_all, table_of

SYSTEMS = ("ce", "ls", "l2t")


def recipe_with(name, **changes):
    """The recipe with what a command line changes."""
    given = {"recipe": name, "seeds": None, "updates": None, "teacher_updates": None, "noise": 0.0, "train_limit": 0}
    texts = dict.fromkeys(("teacher_arguments", "student_arguments", "taught_arguments"), "")
    return chosen_recipe(Namespace(**{**given, **texts, **changes}))


def _value(command, option):
    """The value that counts: the last one."""
    return command[len(command) - 1 - command[::-1].index(option) + 1]


@pytest.mark.parametrize("name", RECIPES)
def test_students_differ_in_their_loss_only(tmp_path, name):
    recipe = recipe_with(name)
    [setting] = settings_of(recipe, tmp_path)
    steps = list(Experiment(recipe, setting).steps())
    assert len(steps) == 1 + 2 * len(SYSTEMS) + 2  # and a comparison, and what the teacher has learned
    commands = [step.command for step in steps if ".train." in step.name]
    assert [step.name.split(".")[4] for step in steps if ".train." in step.name] == list(SYSTEMS)
    own = {"--criterion", "--label-smoothing", "--user-dir", "--task", "--teacher-path", "--save-dir"}
    for command in commands:
        assert _value(command, "--max-update") == str(recipe.students["transformer"].updates)
    shared = [
        [word for before, word in zip(("", *command), command, strict=False) if not {before, word} & own]
        for command in commands
    ]
    assert shared[0] == shared[1] == shared[2]


def test_hypotheses_come_in_the_order_of_the_test_set():
    lines = [
        "S-1\tzwei",
        "T-1\ttwo",
        "H-1\t-0.1\t▁two",
        "D-1\t-0.1\ttwo",
        "P-1\t-0.1",
        "D-10\t-0.3\ta\tb",
        "D-0\t-0.2\t",
        "Generate test with beam=5: BLEU4 = 1.00",
    ]
    assert hypotheses_in_order(lines) == ["", "two", "a\tb"]


def test_means_are_over_differences_of_the_same_seed(experiment):
    finish_all(experiment)
    scores = {"cross-entropy": (10.0, 20.0), "label-smoothing": (11.0, 19.0), "dynamic": (12.0, 23.0)}
    systems = {
        seed: [
            {
                "name": f"transformer.{name}.seed{seed}.txt",
                "BLEU": {"score": values[seed - 1], "p_value": None},
                "chrF2": {"score": 0.0, "p_value": None},
            }
            for name, values in scores.items()
        ]
        for seed in (1, 2)
    }
    compare_all(experiment, systems.__getitem__)
    rows = table_of(experiment)
    assert "| 15.00 (10.00 to 20.00) |  |" in rows["cross-entropy"]
    assert "| 15.00 (11.00 to 19.00) | +0.00 |" in rows["label-smoothing"]
    assert "| 17.50 (12.00 to 23.00) | +2.50 |" in rows["dynamic"]


def test_options_change_a_recipe():
    added = {"teacher_arguments": "--teacher-lr 1", "student_arguments": "--lr 2", "taught_arguments": "--seed 3"}
    demo, recipe = recipe_with("demo"), recipe_with("demo", updates=77, **added)
    student, teacher, losses = recipe.students["transformer"], recipe.teachers["l2t"], recipe.losses
    assert (student.updates, recipe.seeds) == (77, (1,))
    assert all(loss.choices == (("--lr", "2"),) for loss in losses.values())
    assert losses["l2t"].options == ("--seed", "3") and "--seed" not in losses["ls"].options
    assert teacher.updates == demo.teachers["l2t"].updates == 3
    assert teacher.options == (*demo.teachers["l2t"].options, "--teacher-lr", "1")
    assert student.options == demo.students["transformer"].options
    assert all(loss.choices == ((),) for loss in demo.losses.values())


def test_options_of_all_students_win(tmp_path):
    recipe = recipe_with("demo", student_arguments="--lr 2 --seed 7", taught_arguments="--lr 3")
    [setting] = settings_of(recipe, tmp_path)
    commands = [step.command for step in Experiment(recipe, setting).steps() if ".train." in step.name]
    assert [(_value(command, "--lr"), _value(command, "--seed")) for command in commands] == 3 * [("2", "7")]


def test_a_folder_that_is_no_data_is_refused(tmp_path, capsys):
    out = ["--output-dir", str(tmp_path / "out")]
    assert main(["recipe", "multi30k", str(tmp_path), *out]) == 2
    told = f"{tmp_path}: no train.de and no prepared.json, expected a folder of raw text, or a DATA_BIN\n"
    assert capsys.readouterr().err == f"experiments: error: {told}"
    (tmp_path / "prepared.json").touch()
    assert main(["recipe", "multi30k", str(tmp_path), *out, "--noise", "0.3"]) == 2
    assert "--noise, --train-limit: not for" in capsys.readouterr().err


@pytest.mark.parametrize("script", ["multi30k.sh", "iwslt14.sh"])
def test_scripts_say_what_is_missing(repository, tmp_path, script):
    command = ["bash", str(repository / "examples" / "translation" / script)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert "RAW_DIR missing" in result.stderr
    result = subprocess.run(
        [*command, str(tmp_path / "absent"), str(tmp_path / "out")],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHON": sys.executable},
    )
    assert result.returncode == 2
    assert f"{tmp_path / 'absent'}: no train.de" in result.stderr


def test_table_of_a_comparison_is_kept_as_json(experiment):
    """What a record reads is what `l2t-compare --json` writes."""
    from fairseq_l2t.cli.compare import main as compare

    finish_all(experiment)
    student, reference = experiment.students[0].name, experiment.setting.folder / "ref"
    reference.write_text("a good sentence here\nand one more of them\n", encoding="utf-8")

    def systems(seed):
        paths = [experiment.setting.hypotheses(student, loss, seed) for loss in experiment.grid.losses]
        for path in paths:
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(reference.read_bytes())
        out = experiment.setting.folder / "out.json"
        first, *others = map(str, paths)
        options = ["--samples", "5", "--json", str(out)]
        compare(["--ref", str(reference), "--baseline", first, "--systems", *others, *options])
        return json.loads(out.read_text(encoding="utf-8"))["systems"]

    compare_all(experiment, systems)
    assert "| 100.00 (100.00 to 100.00) | +0.00 |" in table_of(experiment)["dynamic"]
