"""The recipe: same options for every student, hypotheses in order, clear errors. It is run whole by `make demo`."""

import json
import os
import subprocess
import sys
from argparse import Namespace

import pytest

from experiments.__main__ import main
from experiments.commands.recipe import chosen_recipe, mean_table
from experiments.grid.recipe import RECIPES, load_recipe
from experiments.plan.command_lines import hypotheses_in_order
from experiments.plan.recipe import SYSTEMS, RecipePlan


def _value(command, option):
    """The value that counts: the last one."""
    return command[len(command) - 1 - command[::-1].index(option) + 1]


@pytest.mark.parametrize("name", RECIPES)
def test_students_differ_in_their_loss_only(tmp_path, name):
    recipe = load_recipe(name)
    steps = {step.name: step for step in RecipePlan(tmp_path / "bin", tmp_path, recipe).steps()}
    assert len(steps) == 1 + 2 * len(SYSTEMS)
    commands = [steps[f"train-{system}.seed1"].command for system in SYSTEMS]
    own = {"--criterion", "--label-smoothing", "--user-dir", "--task", "--teacher-path", "--save-dir"}
    for command in commands:
        assert _value(command, "--max-update") == str(recipe.updates)
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


def test_means_are_over_differences_of_the_same_seed():
    def comparison(scores):
        return {"signatures": {"BLEU": ""}, "systems": [{"BLEU": {"score": score}} for score in scores]}

    text = mean_table([comparison([10.0, 11.0, 12.0]), comparison([20.0, 19.0, 23.0])])
    assert text.splitlines()[1:] == [
        "  ce   BLEU 15.00 (+0.00)",
        "  ls   BLEU 15.00 (+0.00)",
        "  l2t  BLEU 17.50 (+2.50)",
    ]


def test_options_change_a_recipe():
    given = {"recipe": "demo", "seeds": None, "updates": 77, "teacher_updates": None}
    added = {"teacher_arguments": "--teacher-lr 1", "student_arguments": "--lr 2", "taught_arguments": "--seed 3"}
    demo = load_recipe("demo")
    recipe = chosen_recipe(Namespace(**given, **added))
    assert (recipe.updates, recipe.seeds, recipe.overrides) == (77, (1,), ("--lr", "2"))
    assert recipe.taught == ("--seed", "3") and recipe.teacher.updates == demo.teacher.updates == 3
    assert recipe.teacher.options == (*demo.teacher.options, "--teacher-lr", "1")
    assert recipe.options == demo.options and not demo.overrides


def test_a_folder_that_is_no_data_is_refused(tmp_path, capsys):
    out = ["--output-dir", str(tmp_path / "out")]
    assert main(["recipe", "multi30k", str(tmp_path), *out]) == 1
    told = f"{tmp_path}: no train.de and no prepared.json, expected a folder of raw text, or a DATA_BIN\n"
    assert capsys.readouterr().err == f"experiments: error: {told}"
    (tmp_path / "prepared.json").touch()
    assert main(["recipe", "multi30k", str(tmp_path), *out, "--noise", "0.3"]) == 1
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
    assert result.returncode == 1
    assert f"{tmp_path / 'absent'}: no train.de" in result.stderr


def test_table_of_a_comparison_is_kept_as_json(tmp_path):
    """What `mean_table` reads is what `l2t-compare --json` writes."""
    from fairseq_l2t.cli.compare import main as compare

    for name in ("ref", "ce", "ls", "l2t"):
        (tmp_path / name).write_text("a good sentence here\nand one more of them\n", encoding="utf-8")
    compare(
        [
            "--ref",
            str(tmp_path / "ref"),
            "--baseline",
            str(tmp_path / "ce"),
            "--systems",
            str(tmp_path / "ls"),
            str(tmp_path / "l2t"),
            "--samples",
            "5",
            "--json",
            str(tmp_path / "out.json"),
        ]
    )
    kept = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert "l2t  BLEU 100.00 (+0.00)" in mean_table([kept, kept])
