"""A default that refers to another option survives fairseq's parser."""

import pytest
from fairseq import options
from fairseq.dataclass import utils

from fairseq_l2t.compat.interpolated_defaults import patch_overrides

COMMAND = ["data", "--arch", "fconv", "--optimizer", "adam", "--lr-scheduler", "polynomial_decay", "--max-update", "50"]


def configuration(*more):
    namespace = options.parse_args_and_arch(options.get_training_parser(), input_args=[*COMMAND, *more])
    return utils.convert_namespace_to_omegaconf(namespace)


def test_the_default_is_the_other_option(monkeypatch):
    assert configuration().lr_scheduler.total_num_update == 50
    assert configuration("--total-num-update", "7").lr_scheduler.total_num_update == 7
    moses = configuration("--tokenizer", "moses", "--source-lang", "de", "--target-lang", "en")
    assert (moses.tokenizer.source_lang, moses.tokenizer.target_lang) == ("de", "en")
    monkeypatch.setattr(utils, "_override_attr", utils._override_attr.__wrapped__)
    with pytest.raises(Exception, match="total_num_update=null"):  # the control: stock fairseq
        configuration()


def test_a_second_patch_changes_nothing():
    before = utils._override_attr
    patch_overrides(utils)
    assert utils._override_attr is before
