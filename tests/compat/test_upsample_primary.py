import pytest
from fairseq import tasks
from fairseq.tasks import translation
from fairseq.tasks.translation import TranslationConfig

import fairseq_l2t.plugin  # noqa: F401  registers the task
from fairseq_l2t.testing.fairseq_reference import configuration
from tests.plugin.taught import task_arguments
from tests.split_copies import with_splits


@pytest.fixture(scope="module")
def task(data_bin, tmp_path_factory):
    """The task with 400 pairs in train and 40 in train1; only its ``upsample_primary`` may change."""
    data = with_splits(data_bin, tmp_path_factory.mktemp("parts") / "bin", train1="test")
    return tasks.setup_task(configuration(task_arguments(data)).task)


def pairs_of(task, times, combine=True):
    task.cfg.upsample_primary = times
    task.load_dataset("train", combine=combine, epoch=1)
    return len(task.dataset("train"))


def test_default_loads_each_part_once(task):
    default = TranslationConfig().upsample_primary
    assert pairs_of(task, default) == 440
    assert pairs_of(task, default, combine=False) == 400


def test_given_numbers_stay(task):
    assert pairs_of(task, 3) == 3 * 400 + 40
    with pytest.raises(ValueError, match="--upsample-primary: -2; expected at least 0"):
        pairs_of(task, -2)


def test_stock_fairseq_fails(task, monkeypatch):
    """The control."""
    monkeypatch.setattr(translation, "load_langpair_dataset", translation.load_langpair_dataset.__wrapped__)
    with pytest.raises(ValueError, match="negative dimensions are not allowed"):
        pairs_of(task, -1)
