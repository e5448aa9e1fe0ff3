"""Grids of images: what is refused, and that the grids of the repository are sound."""

from pathlib import Path

import pytest

from experiments.grid import load_grid
from fairseq_l2t.pairs.parallel_text import BadInput
from tests.experiments.finished_runs import EXPERIMENTS

TINY = Path(__file__).parent.with_name("tiny_image_grid.yaml")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("seeds: [1, 2]", "seeds: [1, x]"), "seeds.1: 'x', expected a whole number"),
        (
            lambda text: text.replace("teachers:", "teacher:"),
            "key 'teacher', expected one of learning_rates, losses, ",
        ),
        (
            lambda text: text.replace("student: mlp-8", "network: mlp-8"),
            "settings.0: key 'network', expected one of data",
        ),
        (
            lambda text: text.replace("tuning_seeds: [101]", "tuning_seeds: []"),
            r"tuning_seeds: \[\], expected a list",
        ),
        (
            lambda text: text.replace('["--loss cross-entropy"]', '"--loss x"'),
            "cross-entropy: '--loss x', expected a list",
        ),
        (lambda text: "[", "expected the node content"),
        (lambda text: "", "None, expected a mapping with either corpora"),
    ],
)
def test_bad_grids_are_refused(tmp_path, change, message):
    path = tmp_path / "grid.yaml"
    path.write_text(change(TINY.read_text()))
    with pytest.raises(BadInput, match=message) as raised:
        load_grid(path)
    assert str(raised.value).startswith(str(path)) and "\n" not in str(raised.value)


def test_the_grids_here_can_be_read():
    grids = list((EXPERIMENTS / "grids" / "classification").glob("*.yaml"))
    assert grids and all(load_grid(path).losses["cross-entropy"] for path in grids)
