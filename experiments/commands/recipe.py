"""One experiment on prepared data: cross-entropy, label smoothing and a learned loss, by the same recipe.

    python -m experiments recipe multi30k DATA --output-dir out/run --seeds 1 2 3

DATA is a folder of raw text or a DATA_BIN made by ``python -m fairseq_l2t.pairs.prepare``. A finished step is not done
again, so that an interrupted run goes on, unless its input has changed. A training of another command under the same
name is refused, so that no finished one is lost.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.grid.recipe import RECIPES, Recipe, load_recipe
from experiments.plan.command_lines import inspect, words
from experiments.plan.decoding import read_hypotheses
from experiments.plan.recipe import SYSTEMS, RecipePlan
from experiments.programs.runner import run_steps
from fairseq_l2t.pairs.parallel_text import LANGUAGES, BadInput, read_lines, write_lines
from fairseq_l2t.pairs.prepare import RECORD, PrepareSettings, prepare, reference_file
from fairseq_l2t.pairs.programs import StepFailed, console_script
from fairseq_l2t.storage import lock_run_folder

__all__ = ["add_options", "chosen_recipe", "mean_table", "run", "run_recipe"]


def run_recipe(plan: RecipePlan, jobs: int) -> None:
    """Do what is not done yet, then score and report.

    Raises:
        BadInput: a folder holds the work of another command.
        RunFolderError: another run uses the folder.
        StepFailed: a program ended with an error.
    """
    with lock_run_folder(plan.output):
        run_steps(plan.steps(), jobs)
        _write_hypotheses(plan)
        _report(plan)


def _write_hypotheses(plan: RecipePlan) -> None:
    reference, folder = reference_file(plan.data_bin), plan.output / "hypotheses"
    folder.mkdir(parents=True, exist_ok=True)
    write_lines(folder / "reference.txt", read_lines(reference))
    for seed in plan.recipe.seeds:
        for system in SYSTEMS:
            write_lines(plan.hypotheses(system, seed), read_hypotheses(plan.decoded(system, seed), reference))


def _report(plan: RecipePlan) -> None:
    """Print the tables of l2t-compare, one a seed, their means, the learned loss, and where things are."""
    comparisons = []
    for seed in plan.recipe.seeds:
        result = plan.output / f"comparison.seed{seed}.json"
        baseline, *others = (plan.hypotheses(system, seed) for system in SYSTEMS)
        print(f"\nStudents of seed {seed} on the test set:\n", flush=True)
        files = words("--ref {} --baseline {}", plan.output / "hypotheses" / "reference.txt", baseline)
        systems = ("--systems", *map(str, others), "--json", str(result))
        _show((console_script("l2t-compare"), *files, *systems))
        comparisons.append(json.loads(result.read_text(encoding="utf-8")))
    if len(comparisons) > 1:
        print("\n" + mean_table(comparisons), flush=True)
    print("\nThe learned loss:\n", flush=True)
    _show(inspect(plan.teacher, plan.data_bin / f"dict.{LANGUAGES[1]}.txt", plan.output / "plots"))
    places = {
        "teacher": plan.teacher,
        "students": plan.output / "checkpoints",
        "hypotheses": plan.output / "hypotheses",
        "plots": plan.output / "plots",
        "logs and commands": plan.output / "logs",
    }
    print("", *(f"{name}: {path}" for name, path in places.items()), sep="\n", flush=True)


def mean_table(comparisons: Sequence[dict[str, Any]]) -> str:
    """Return the mean score of each system over the seeds, and the mean difference to its own seed's baseline."""
    metrics = list(comparisons[0]["signatures"])
    lines = [f"Means over {len(comparisons)} seeds (difference to the baseline of the same seed):"]
    for index, system in enumerate(SYSTEMS):
        cells = []
        for metric in metrics:
            rows = [[entry[metric]["score"] for entry in comparison["systems"]] for comparison in comparisons]
            mean = sum(row[index] for row in rows) / len(rows)
            delta = sum(row[index] - row[0] for row in rows) / len(rows)
            cells.append(f"{metric} {mean:.2f} ({delta:+.2f})")
        lines.append(f"  {system:<4} " + "  ".join(cells))
    return "\n".join(lines)


def _show(command: Sequence[str]) -> None:
    """Run a command that prints its result.

    Raises:
        StepFailed: it ended with an error.
    """
    result = subprocess.run(command)
    if result.returncode != 0:
        raise StepFailed(f"exit code {result.returncode} of\n$ {shlex.join(command)}")


def run(options: argparse.Namespace) -> None:
    """Prepare the data if need be, run a recipe on it, and print its result; see `run_recipe` for the errors.

    Raises:
        BadInput: the data is neither raw text nor a DATA_BIN.
    """
    recipe, data = chosen_recipe(options), options.data
    if not (data / RECORD).is_file():
        if not (data / "train.de").exists():
            raise BadInput(f"{data}: no train.de and no {RECORD}, expected a folder of raw text, or a DATA_BIN")
        settings = PrepareSettings(recipe.vocabulary, noise=options.noise, train_limit=options.train_limit)
        data = prepare(data, options.output_dir / "data", settings)
    elif options.noise or options.train_limit:
        raise BadInput(f"--noise, --train-limit: not for {data}, which is prepared; expected a folder of raw text")
    run_recipe(RecipePlan(data, options.output_dir, recipe), options.jobs)


def chosen_recipe(options: argparse.Namespace) -> Recipe:
    """Return the recipe with the changes that the command line asks for."""
    recipe = load_recipe(options.recipe)
    added = {
        name: tuple(shlex.split(getattr(options, f"{name}_arguments"))) for name in ("teacher", "student", "taught")
    }
    updates = recipe.teacher.updates if options.teacher_updates is None else options.teacher_updates
    teacher = {"options": (*recipe.teacher.options, *added["teacher"]), "updates": updates}
    return recipe.model_copy(
        update={
            "teacher": recipe.teacher.model_copy(update=teacher),
            "updates": options.updates or recipe.updates,
            "seeds": tuple(options.seeds or recipe.seeds),
            "overrides": (*recipe.overrides, *added["student"]),
            "taught": (*recipe.taught, *added["taught"]),
        }
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of this program."""
    parser.add_argument("recipe", choices=RECIPES, metavar="RECIPE", help=f"one of {', '.join(RECIPES)}")
    parser.add_argument("data", type=Path, metavar="DATA", help="{train,valid,test}.{de,en} in it, or a DATA_BIN")
    parser.add_argument("--output-dir", type=Path, required=True, metavar="DIR")
    noise = "share of the training pairs to misalign (default: 0)"
    parser.add_argument("--noise", type=float, default=0.0, metavar="SHARE", help=noise)
    limit = "training pairs to use, the first of them (default: 0, all)"
    parser.add_argument("--train-limit", type=int, default=0, metavar="N", help=limit)
    parser.add_argument("--seeds", type=int, nargs="+", metavar="N", help="student seeds (default: the recipe's)")
    parser.add_argument("--updates", type=int, metavar="N", help="length of a student's training")
    parser.add_argument("--teacher-updates", type=int, metavar="N", help="0 or more")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="programs at a time (default: 2)")
    for name, which in (
        ("student", "fairseq options of all students, not of the teacher; later ones win"),
        ("teacher", "options of l2t-train-teacher"),
        ("taught", "fairseq options of the taught student"),
    ):
        parser.add_argument(f"--{name}-arguments", default="", metavar="TEXT", help=which)
