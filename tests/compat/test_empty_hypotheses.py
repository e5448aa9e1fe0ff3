from types import SimpleNamespace

import pytest
from fairseq_cli import train
from omegaconf import OmegaConf

from fairseq_l2t.compat.empty_hypotheses import patch_validation


def configuration(metric="bleu", eval_bleu=True):
    checkpoint = {"best_checkpoint_metric": metric, "maximize_best_checkpoint_metric": True}
    return OmegaConf.create({"checkpoint": checkpoint, "task": {"eval_bleu": eval_bleu}})


@pytest.fixture
def best_so_far(monkeypatch):
    monkeypatch.setattr(train.checkpoint_utils.save_checkpoint, "best", 3.0, raising=False)


def stats_of(function, cfg, **stats):
    return function(cfg, SimpleNamespace(get_num_updates=lambda: 7), {"loss": 2.0, **stats}, True)


def test_bleu_of_nothing_is_zero(best_so_far):
    stats = stats_of(train.get_valid_stats, configuration())
    assert (stats["bleu"], stats["best_bleu"]) == (0.0, 3.0)
    assert stats_of(train.get_valid_stats, configuration(), bleu=4.0)["best_bleu"] == 4.0


def test_stock_validation_fails(best_so_far):
    """The control."""
    with pytest.raises(KeyError, match="bleu"):
        stats_of(train.get_valid_stats.__wrapped__, configuration())


@pytest.mark.parametrize("cfg", [configuration("loss"), configuration(eval_bleu=False)])
def test_other_metrics_are_left_alone(cfg):
    stats = {"loss": 2.0}
    module = SimpleNamespace(get_valid_stats=lambda cfg, trainer, stats, tracking_best: stats)
    patch_validation(module)
    assert module.get_valid_stats(cfg, None, stats, True) == {"loss": 2.0}


def test_a_second_patch_changes_nothing():
    before = train.get_valid_stats
    patch_validation(train)
    assert train.get_valid_stats is before
