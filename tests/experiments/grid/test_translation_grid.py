"""Grids: what is read, what is refused and in which words, and that the grids of the repository are sound."""

from pathlib import Path

import pytest
import yaml

from experiments.grid import load_grid
from experiments.plan.setting import settings_of
from experiments.plan.translation import Experiment
from fairseq_l2t.pairs.parallel_text import BadInput
from tests.experiments.finished_runs import GRIDS

TINY = Path(__file__).parent.with_name("tiny_grid.yaml")


def test_a_grid_is_read():
    grid = load_grid(TINY)
    assert [corpus.name for corpus in grid.corpora.values()] == ["tiny", "absent"]
    assert grid.students_of(grid.corpora["tiny"]) == [grid.students["transformer"]]
    assert grid.corpora["tiny"].embedded.train == 300
    assert (grid.noise, grid.seeds, grid.beam, grid.length_penalties) == ((0.3,), (1, 2), 5, (1.0, 1.5))
    assert grid.students["transformer"].learning_rates == (0.01, 0.02)
    assert grid.losses["label-smoothing"].choices == (("--label-smoothing", "0.1"), ("--label-smoothing", "0.2"))
    assert grid.losses["cross-entropy"].choices == ((),)
    # A list of texts is one command line.
    options = grid.teachers["dynamic"].options
    assert options[:2] == ("--arch", "transformer") and options[-2:] == ("--initial-coefficient", "0.3")


def changed(path, *keys, value):
    """Write the tiny grid with one entry changed, or left out where the value is None."""
    content = yaml.safe_load(TINY.read_text(encoding="utf-8"))
    entry = content
    for key in keys[:-1]:
        entry = entry[key]
    if value is None:
        del entry[keys[-1]]
    else:
        entry[keys[-1]] = value
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (("seed",), 1, "the file: key 'seed', expected one of baselines, beam, corpora,"),
        (("seeds",), None, "seeds: missing, expected in the file: baselines, corpora, losses, seeds"),
        (("seeds",), [1, 1], "seeds: [1, 1], expected no value twice"),
        (("length_penalties",), [], "length_penalties: [], expected a list of at least one value"),
        (("length_penalties",), [1, 1.0], "length_penalties: [1, 1.0], expected no value twice"),
        (("length_penalties",), [-1], "length_penalties.0: -1, expected at least 0"),
        (("seeds",), [0], "seeds.0: 0, expected at least 1"),
        (("noise",), [1.5], "noise.0: 1.5, expected at most 1"),
        (("noise",), [float("nan")], "noise.0: nan, expected at"),
        (("noise",), [0.3, 0.3000000001], "noise: [0.3, 0.3000000001], expected no value twice"),
        (("noise",), [], "noise: [], expected a list of at least one value"),
        (("noise",), 0.3, "noise: 0.3, expected a list of at least one value"),
        (("baselines",), ["ce"], "baselines: 'ce', expected one of cross-entropy, label-smoothing, fixed, dynamic"),
        (("baselines",), [{"a": 1}], "baselines.0: ['a'], expected text"),
        (("baselines",), None, "baselines: missing, expected in the file: baselines"),
        (("corpora", "tiny", "raw"), "x", "corpora.tiny: ['embedded', 'raw', 'vocabulary'], expected either"),
        (("corpora", "tiny", "embedded", "train"), -3, "corpora.tiny.embedded.train: -3, expected at least 1"),
        (("seeds",), [True], "seeds.0: True, expected a whole number"),
        (("students", "transformer", "updates"), 4.0, "updates: 4.0, expected a whole number"),
        (("losses", "fixed", "name"), "x", "expected entries without `name`"),
        (("corpora", "tiny", "embedded", "train"), "abc", "corpora.tiny.embedded.train: 'abc', expected a whole"),
        (("corpora", "tiny", "embedded", "seed"), [1], "corpora.tiny.embedded.seed: [1], expected a whole number"),
        (("corpora", "absent", "raw"), 5, "corpora.absent.raw: 5, expected text"),
        (("corpora", "tiny", "students"), 2 * ["transformer"], "'transformer'], expected no value twice"),
        (("corpora", "tiny", "embedded", "rain"), 5, "corpora.tiny.embedded: key 'rain', expected one of dev, seed,"),
        (
            ("corpora", "tiny", "vocabulary"),
            None,
            "vocabulary: missing, expected in corpora.tiny: vocabulary",
        ),
        (("corpora", "tiny", "direction"), "de-fr", "corpora.tiny.direction: 'de-fr', expected 'de-en' or 'en-de'"),
        (("corpora", "tiny", "students"), ["lstm"], "corpora.tiny.students: 'lstm', expected one of transformer"),
        (("students", "transformer", "learning_rates"), ["1e-3"], "after a point, such as 5.0e-4"),
        (
            ("students", "transformer", "learning_rates"),
            [float("inf")],
            "rates.0: inf, expected at most 2147483647",
        ),
        (("students", "transformer", "learning_rates"), [float("nan")], "learning_rates.0: nan, expected at"),
        (("students", "transformer", "learning_rates"), [0.1, 0.1], "learning_rates: [0.1, 0.1], expected no value"),
        (("students", "transformer", "learning_rates"), [0.1, 0.1000000001], "0.1000000001], expected no value twice"),
        (("students", "transformer", "learning_rates"), [], "learning_rates: [], expected a list of at least one"),
        (("students", "transformer", "options"), "'", 'options: "\'", expected options as a shell reads them'),
        (("students", "transformer", "options"), 5, "options: 5, expected options as text, or a list of such texts"),
        (("students", "transformer", "options"), "--lr=1", "'--lr=1', expected options without --lr, which is in"),
        (
            ("teachers", "dynamic", "options"),
            "--save-dir x",
            "'--save-dir x', expected options without --save",
        ),
        (("losses", "fixed", "options"), "--criterion mse", "without --criterion, which is set by the teacher"),
        (
            ("losses", "fixed", "choices"),
            ["--seed 3"],
            "'--seed 3', expected options without --seed, which is",
        ),
        (("losses", "fixed", "choices"), [], "losses.fixed.choices: [], expected a list of at least one value"),
        (("losses",), {"fixed": {"teacher": "initial"}}, "losses: ['fixed'], expected at least 2 of them"),
        (("students", "transformer", "validate_every"), 100, "validate_every: 100, expected at most updates, 40"),
        (("students", "a/b"), {}, "students.a/b: 'a/b', expected letters, digits, - and _"),
        (("teachers", "initial", "updates"), -1, "teachers.initial.updates: -1, expected at least 0"),
        (("losses", "dynamic", "teacher"), "none", "losses.dynamic.teacher: 'none', expected one of initial, dynamic"),
        (("losses", "dynamic", "teacher"), ["dynamic"], "losses.dynamic.teacher: ['dynamic'], expected text"),
        (("losses", "fixed"), {}, "losses.fixed: [], expected options with a --criterion, or a teacher"),
        (("losses", "fixed"), "mse", "losses.fixed: 'mse', expected a mapping with choices, options, teacher"),
    ],
)
def test_what_cannot_be_run_is_refused(tmp_path, keys, value, message):
    path = changed(tmp_path / "grid.yaml", *keys, value=value)
    with pytest.raises(BadInput) as refused:
        load_grid(path)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_key_that_stands_twice_is_refused(tmp_path):
    """YAML would take the second; a merged one is written over on purpose."""
    path, text, entry = tmp_path / "grid.yaml", TINY.read_text(encoding="utf-8"), "  fixed: {teacher: initial}"
    path.write_text(text.replace(entry, f"{entry}\n{entry}"), encoding="utf-8")
    line = path.read_text(encoding="utf-8").splitlines().index(entry) + 2
    with pytest.raises(BadInput, match=f"{path}: line {line}: fixed is given twice"):
        load_grid(path)
    assert "<<: *teacher" in text and load_grid(TINY).teachers["dynamic"].updates == 2


@pytest.mark.parametrize("content", ["a: [", "", "[1, 2]", "\udcff"])
def test_files_that_are_no_grid_are_refused(tmp_path, content):
    path = tmp_path / "grid.yaml"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(BadInput, match=f"{path}: "):
        load_grid(path)
    with pytest.raises(BadInput, match="No such file"):
        load_grid(tmp_path / "missing.yaml")


def test_nothing_is_executed_by_reading(tmp_path):
    path = tmp_path / "grid.yaml"
    path.write_text("seeds: !!python/object/apply:os.getcwd []\n", encoding="utf-8")
    with pytest.raises(BadInput, match="could not determine a constructor"):
        load_grid(path)


@pytest.mark.parametrize("name", ["cpu", "full"])
def test_grids_of_results(name):
    grid = load_grid(GRIDS / f"{name}.yaml")
    assert len(grid.seeds) >= 3 and set(grid.noise) == {0.0, 0.3}
    assert {"cross-entropy", "label-smoothing"} == set(grid.baselines) < set(grid.losses)


@pytest.mark.parametrize("name", ["longer-lives", "lstm-lower-rate", "transfer"])
def test_grids_that_answer_one_question(name, tmp_path):
    grid = load_grid(GRIDS / f"{name}.yaml")
    experiments = [Experiment(grid, setting) for setting in settings_of(grid, tmp_path)]
    # No teacher is described and then not trained.
    assert all(set(experiment.used_teachers) == set(grid.teachers) for experiment in experiments)
    assert all(list(experiment.steps()) for experiment in experiments)
