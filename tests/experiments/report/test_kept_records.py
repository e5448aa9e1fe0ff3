"""Records that the repository keeps: readable, and the tables beside them are those of the records."""

import pytest

from experiments.grid import load_grid
from experiments.plan.images import chosen_options
from experiments.plan.setting import settings_of
from experiments.records.images import read_records
from experiments.report import images, translation
from tests.experiments.finished_runs import EXPERIMENTS, GRIDS, KEPT

TABLES = sorted(path.parent.name for path in KEPT.glob("*/results.md"))
IMAGES = sorted(path.parent.name for path in (EXPERIMENTS / "kept" / "classification").glob("*/runs.jsonl"))


@pytest.mark.parametrize("name", TABLES)
def test_tables_of_translation(name):
    grid = load_grid(GRIDS / ("cpu.yaml" if name.startswith("cpu") else f"{name}.yaml"))
    found = translation.records_of(settings_of(grid, KEPT / name))
    assert translation.tables(grid, found) + "\n" == (KEPT / name / "results.md").read_text(encoding="utf-8")


def test_records_without_a_table():
    grid = load_grid(GRIDS / "cpu.yaml")
    [records] = translation.records_of(settings_of(grid, KEPT / "cpu-two-rates"))
    assert records.runs and not records.teachers


@pytest.mark.parametrize("name", IMAGES)
def test_records_of_images(name):
    grid = load_grid(EXPERIMENTS / "grids" / "classification" / f"{name}.yaml")
    records = read_records(EXPERIMENTS / "kept" / "classification" / name / "runs.jsonl", grid)
    assert all(chosen_options(grid, setting, loss, records) for setting in grid.settings for loss in grid.losses)
    assert images.tables(grid, records).count("\n### ") == len(grid.settings) - 1


def test_there_are_records():
    assert len(TABLES) >= 7 and len(IMAGES) == 4
