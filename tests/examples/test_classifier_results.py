"""The results of classification: what is chosen and by what, what counts, and that nothing is done twice."""

import json
from pathlib import Path

import pytest
from classifier_grid import GridError, read_grid
from classifier_records import append_record, chosen_options, read_records, write_tables

TINY = Path(__file__).with_name("tiny_classifier_grid.yaml")


def record(options, lr, seed, dev, test=None):
    student = read_grid(TINY).student
    return {"setting": "digits.noise40.mlp-8", "student": student, "options": options, "lr": lr, "seed": seed,
            "protocol": "our split", "dev_error": dev, "test_error": test}  # fmt: skip


def test_choices_are_those_of_dev_and_of_tuning_seeds(tmp_path):
    grid, path = read_grid(TINY), tmp_path / "runs.jsonl"
    first, second = grid.losses["label-smoothing"]
    for options, lr, dev in ((first, 0.03, 5.0), (first, 0.1, 4.0), (second, 0.03, 3.0)):
        append_record(path, record(options, lr, 101, dev))
    assert chosen_options(grid, grid.settings[0], "label-smoothing", read_records(path, grid)) is None  # one is missing
    append_record(path, record(second, 0.1, 101, 3.5))
    append_record(path, record(first, 0.1, 1, 0.0, 0.0))  # a seed that counts does not choose
    assert chosen_options(grid, grid.settings[0], "label-smoothing", read_records(path, grid)) == (second, 0.03)


def test_tables_by_hand(tmp_path):
    grid, path = read_grid(TINY), tmp_path / "runs.jsonl"
    for loss, tests in (("cross-entropy", (10.0, 12.0)), ("l2t-dlf", (5.0, 6.0))):
        options = grid.losses[loss][0]
        for lr in grid.learning_rates:
            append_record(path, record(options, lr, 101, lr))
        for seed, test in zip(grid.seeds, tests, strict=True):
            append_record(path, record(options, 0.03, seed, 7.0, test))
    text = write_tables(grid, read_records(path, grid), tmp_path)
    # Two seeds: t = 12.706 with one degree of freedom; standard errors 1 and 0.5.
    assert "| cross-entropy | `--loss cross-entropy --lr 0.03` | 2 | 7.00 | 11.00 ± 12.71 |  |" in text
    assert "| 5.50 ± 6.35 | -50 % |" in text and "label-smoothing" not in text
    assert (tmp_path / "results.md").read_text() == text


def test_a_cut_line_is_left_out(tmp_path):
    grid, path = read_grid(TINY), tmp_path / "runs.jsonl"
    append_record(path, record("a", 0.1, 1, 2.0))
    with path.open("a") as file:
        file.write(json.dumps(record("a", 0.1, 2, 2.0))[:-5])
    assert [key[-1] for key in read_records(path, grid)] == [1]


def test_records_of_other_students_do_not_count(tmp_path):
    grid, path = read_grid(TINY), tmp_path / "runs.jsonl"
    append_record(path, record("a", 0.1, 1, 2.0))
    append_record(path, record("a", 0.1, 2, 2.0) | {"student": grid.student + " --split-seed 3"})
    append_record(path, {key: value for key, value in record("a", 0.1, 3, 2.0).items() if key != "student"})
    assert [key[-1] for key in read_records(path, grid)] == [1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("seeds: [1, 2]", "seeds: [1, x]"), "'x'; expected a whole number"),
        (lambda text: text.replace("teachers:", "teacher:"), "entries .*expected"),
        (lambda text: text.replace("student: mlp-8", "network: mlp-8"), "KeyError: 'student'"),
        (lambda text: "[", "while parsing"),
        (lambda text: "", "entries NoneType"),
    ],
)
def test_bad_grids_are_refused(tmp_path, change, message):
    path = tmp_path / "grid.yaml"
    path.write_text(change(TINY.read_text()))
    with pytest.raises(GridError, match=message) as raised:
        read_grid(path)
    assert str(raised.value).startswith(str(path)) and "\n" not in str(raised.value)


def test_the_grids_here_can_be_read(repository):
    grids = list((repository / "examples" / "classification" / "grids").glob("*.yaml"))
    assert grids and all(read_grid(path).losses["cross-entropy"] for path in grids)


@pytest.mark.slow
def test_a_grid_is_run_once(tmp_path, run_command, repository):
    script = repository / "examples" / "classification" / "results.py"
    command = ["python", script, TINY, "--output-dir", tmp_path / "out"]
    found = run_command(command).stdout
    assert all(f"| {loss} |" in found for loss in ("cross-entropy", "label-smoothing", "l2t-dlf"))
    lines = (tmp_path / "out" / "runs.jsonl").read_text().splitlines()
    assert len(lines) == 2 * 4 + 3 * 2  # two rates of four options choose, two seeds of three losses count
    assert all((json.loads(line)["test_error"] is None) == (json.loads(line)["seed"] == 101) for line in lines)
    assert (tmp_path / "out" / "digits.noise40.mlp-8" / "trained" / "phi.png").exists()
    (tmp_path / "out" / "runs.jsonl").write_text("\n".join(lines[:-3]) + "\n")  # as if stopped before the last three
    assert run_command(command).stdout.partition("wall")[0] == found.partition("wall")[0]
    again = (tmp_path / "out" / "runs.jsonl").read_text().splitlines()
    assert again[:-3] == lines[:-3] and len(again) == len(lines)
    told = run_command([*command[:2], tmp_path / "none.yaml", *command[3:]], expect=2).stderr
    assert told.startswith("results.py: error: ") and "none.yaml" in told and told.count("\n") == 1
