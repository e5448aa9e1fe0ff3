import sys
from dataclasses import replace
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "translation"
for folder in (EXAMPLES, EXAMPLES.with_name("classification")):
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


@pytest.fixture(scope="session")
def examples():
    """The folder of the translation examples; they import each other by plain names."""
    return EXAMPLES


@pytest.fixture
def experiment(tmp_path):
    """The tiny grid's experiment with one length penalty, nothing run yet."""
    from experiment_settings import settings_of
    from experiment_steps import Experiment
    from grid import load_grid

    from tests.examples.finished_runs import TINY

    grid = replace(load_grid(TINY), length_penalties=(1.0,))
    return Experiment(grid, settings_of(grid, tmp_path)[0])
