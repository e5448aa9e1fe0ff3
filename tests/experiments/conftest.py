import pytest

from experiments.grid import load_grid
from experiments.plan.setting import settings_of
from experiments.plan.translation import Experiment
from tests.experiments.finished_runs import TINY, with_values


@pytest.fixture
def experiment(tmp_path):
    """The tiny grid's experiment with one length penalty, nothing run yet."""
    grid = with_values(load_grid(TINY), length_penalties=(1.0,))
    return Experiment(grid, settings_of(grid, tmp_path)[0])
