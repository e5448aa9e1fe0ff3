"""Options of a grid that its programs would refuse: told before the first of them starts."""

from dataclasses import replace

import pytest

from experiments.grid import load_grid
from experiments.plan.option_checks import refuse_bad_options
from experiments.plan.setting import settings_of
from experiments.plan.translation import Experiment
from fairseq_l2t.pairs.parallel_text import BadInput
from tests.experiments.finished_runs import GRIDS, TINY, refused

PLAIN, SMOOTHED = (
    "tiny.noise30.train.transformer." + name for name in ("cross-entropy.lr0.01", "label-smoothing.lr0.01.choice2")
)
TEACHER = "tiny.noise30.teacher.initial"
WRONG = [
    # what stands in a grid, what stands there instead, the step that tells, and what it says
    (
        "--encoder-ffn-embed-dim 32",
        "--encoder-fnn-embed-dim 32",
        TEACHER,
        "l2t-train-teacher refuses its options: unrecognized arguments: --encoder-fnn-embed-dim 32",
    ),
    ("--unroll-length 4", "--unroll-length four", TEACHER, "--unroll-length: four; expected a whole number"),
    ("--unroll-length 4", "--dev-holdout 1", TEACHER, "--dev-holdout: 1; expected a number of at least 0 and below 1"),
    (
        "--label-smoothing 0.2",
        "--label-smoothin 0.2",
        SMOOTHED,
        "fairseq-train refuses its options: unrecognized arguments: --label-smoothin 0.2",
    ),
    (
        "criterion cross_entropy",
        "criterion cross-entropy",
        PLAIN,
        "argument --criterion: invalid choice: 'cross-entropy'",
    ),
    ("criterion cross_entropy", "criterion cross_entropy --user-dir no/such", PLAIN, "--user-dir: "),
    ("criterion cross_entropy", "criterion cross_entropy --help", PLAIN, "refuses its options: --help: trains nothing"),
]


def experiments(path, folder):
    """The grid's, with an empty folder for the data of each."""
    grid = load_grid(path)
    for setting in settings_of(grid, folder):
        setting.data_bin.mkdir(parents=True)
        yield Experiment(grid, setting)


def write_grid(path, right, wrong):
    text = TINY.read_text(encoding="utf-8")
    assert text.count(right) == 1
    path.write_text(text.replace(right, wrong), encoding="utf-8")


@pytest.mark.parametrize(("right", "wrong", "step", "why"), WRONG)
def test_what_a_program_would_refuse(tmp_path, right, wrong, step, why):
    grid = tmp_path / "grid.yaml"
    write_grid(grid, right, wrong)
    kind = step.split(".")[1]
    with pytest.raises(BadInput) as error:
        refuse_bad_options(grid, (one for one in next(experiments(grid, tmp_path)).steps() if f".{kind}." in one.name))
    assert str(error.value).startswith(f"{grid}: {step}: ") and why in str(error.value)


def test_no_program_is_started(tmp_path, capsys):
    grid, out = tmp_path / "grid.yaml", tmp_path / "out"
    write_grid(grid, *WRONG[3][:2])
    message = refused(capsys, "run", grid, "--output-dir", out, "--settings", "tiny.noise30")
    assert message.startswith(f"experiments: error: {grid}: {SMOOTHED}: ")
    assert (out / "tiny.noise30" / "data").exists() and not (out / "tiny.noise30" / "logs").exists()


def test_a_plugin_that_cannot_be_imported(tmp_path):
    plugin, grid = tmp_path / "broken_plugin", tmp_path / "grid.yaml"
    plugin.mkdir()
    (plugin / "__init__.py").write_text("import no_such_module_of_anyone", encoding="utf-8")
    write_grid(grid, "criterion cross_entropy", f"criterion cross_entropy --user-dir {plugin}")
    with pytest.raises(BadInput, match=f"{PLAIN}: fairseq-train refuses .* --user-dir: No module named 'no_such"):
        refuse_bad_options(grid, (one for one in next(experiments(grid, tmp_path)).steps() if ".train." in one.name))


def test_a_student_without_an_architecture(experiment):
    steps = [step for step in experiment.steps() if ".train." in step.name]
    refuse_bad_options(TINY, steps)
    arch = steps[0].command.index("--arch")
    bare = replace(steps[0], command=steps[0].command[:arch] + steps[0].command[arch + 2 :])
    with pytest.raises(BadInput, match="--arch is not given"):
        refuse_bad_options(TINY, [bare])


@pytest.mark.parametrize("path", sorted(GRIDS.glob("*.yaml")), ids=lambda path: path.stem)
def test_no_grid_of_ours_has_a_bad_option(path, tmp_path):
    refuse_bad_options(path, (step for one in experiments(path, tmp_path) for step in one.steps()))
