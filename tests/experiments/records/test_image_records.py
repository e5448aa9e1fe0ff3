"""Records of image students: the choices they make, the tables, and which of them count."""

import json
from pathlib import Path

import pytest

from experiments.grid import load_grid
from experiments.plan.images import chosen_options
from experiments.records.images import append_record, read_records, teacher_digest, teacher_file
from experiments.report.images import tables
from fairseq_l2t.pairs.parallel_text import BadInput
from tests.experiments.finished_runs import unpadded
from tests.storage.files import files_end_at

TINY = Path(__file__).parent.with_name("tiny_image_grid.yaml")


def record(options, lr, seed, dev, test=None):
    student = load_grid(TINY).student
    return {
        "setting": "digits.noise40.mlp-8",
        "student": student,
        "options": options,
        "lr": lr,
        "seed": seed,
        "protocol": "our split",
        "dev_error": dev,
        "test_error": test,
    }


def test_choices_are_those_of_dev_and_of_tuning_seeds(tmp_path):
    grid, path = load_grid(TINY), tmp_path / "runs.jsonl"
    first, second = grid.losses["label-smoothing"]
    for options, lr, dev in ((first, 0.03, 5.0), (first, 0.1, 4.0), (second, 0.03, 3.0)):
        append_record(path, record(options, lr, 101, dev))
    assert chosen_options(grid, grid.settings[0], "label-smoothing", read_records(path, grid)) is None  # one is missing
    append_record(path, record(second, 0.1, 101, 3.5))
    append_record(path, record(first, 0.1, 1, 0.0, 0.0))  # a seed that counts does not choose
    assert chosen_options(grid, grid.settings[0], "label-smoothing", read_records(path, grid)) == (second, 0.03)


def test_tables_by_hand(tmp_path):
    grid, path = load_grid(TINY), tmp_path / "runs.jsonl"
    own = {"teacher": {"name": "trained", "sha256": "of a file that is not here"}}
    for loss, tests in (("cross-entropy", (10.0, 12.0)), ("l2t-dlf", (5.0, 6.0))):
        options = grid.losses[loss][0]
        for lr in grid.learning_rates:
            append_record(path, record(options, lr, 101, lr) | own)
        for seed, test in zip(grid.seeds, tests, strict=True):
            append_record(path, record(options, 0.03, seed, 7.0, test) | own)
    text = "\n".join(unpadded(line) for line in tables(grid, read_records(path, grid)).splitlines())
    # Two seeds: t = 12.706 with one degree of freedom; standard errors 1 and 0.5.
    assert "| cross-entropy | `--loss cross-entropy --lr 0.03` | 2 | 7.00 | 11.00 ± 12.71 |  |" in text
    assert "| 5.50 ± 6.35 | -50 % |" in text and "label-smoothing" not in text


def test_a_cut_line_is_left_out(tmp_path):
    grid, path = load_grid(TINY), tmp_path / "runs.jsonl"
    append_record(path, record("a", 0.1, 1, 2.0))
    with path.open("a") as file:
        file.write(json.dumps(record("a", 0.1, 2, 2.0))[:-5])
    assert [key[-1] for key in read_records(path, grid)] == [1]
    append_record(path, record("a", 0.1, 3, 2.0))  # in its place
    assert [key[-1] for key in read_records(path, grid)] == [1, 3]
    path.write_text(path.read_text() + "{}\n")
    with pytest.raises(BadInput, match=f"^{path}, line 3: expected a record that `experiments run` wrote"):
        read_records(path, grid)


def test_a_full_disk_leaves_whole_lines(tmp_path):
    grid, path = load_grid(TINY), tmp_path / "runs.jsonl"
    append_record(path, record("a", 0.1, 1, 2.0))
    before = path.read_bytes()
    with files_end_at(len(before) + 20), pytest.raises(OSError, match=str(path)):
        append_record(path, record("a", 0.1, 2, 2.0))
    assert path.read_bytes() == before
    append_record(path, record("a", 0.1, 2, 2.0))
    assert [key[-1] for key in read_records(path, grid)] == [1, 2]


def test_records_under_a_teacher_that_was_trained_further_do_not_count(tmp_path):
    grid, path = load_grid(TINY), tmp_path / "runs.jsonl"
    setting, options = grid.settings[0], grid.losses["l2t-dlf"][0]
    file = teacher_file(tmp_path, setting, "trained")
    file.parent.mkdir(parents=True)
    file.write_bytes(b"first")
    taught = {"teacher": teacher_digest(tmp_path, setting, "trained")}
    append_record(path, record(options, 0.1, 1, 2.0) | taught)
    append_record(path, record(options, 0.1, 2, 2.0))  # which teacher is not known
    append_record(path, record("--loss cross-entropy", 0.1, 3, 2.0))
    assert [key[-1] for key in read_records(path, grid)] == [1, 3]
    file.write_bytes(b"later")
    assert [key[-1] for key in read_records(path, grid)] == [3]
    file.unlink()  # the records alone, as they are kept in the repository
    assert [key[-1] for key in read_records(path, grid)] == [1, 3]


def test_records_of_other_students_do_not_count(tmp_path):
    grid, path = load_grid(TINY), tmp_path / "runs.jsonl"
    append_record(path, record("a", 0.1, 1, 2.0))
    append_record(path, record("a", 0.1, 2, 2.0) | {"student": grid.student + " --split-seed 3"})
    append_record(path, {key: value for key, value in record("a", 0.1, 3, 2.0).items() if key != "student"})
    assert [key[-1] for key in read_records(path, grid)] == [1]
