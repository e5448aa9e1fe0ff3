"""Every number of fairseq that teacher training uses has a range; outside of it the option is refused by name."""

import math

import pytest

from fairseq_l2t.plugin import OptionError
from fairseq_l2t.plugin.option_effects import OBEYED
from fairseq_l2t.plugin.option_ranges import RANGES, refuse_out_of_range
from tests.plugin.test_option_effects import parsers

WITHOUT_RANGE = {"upsample_primary", "validate_interval_updates"}
"""A number that fairseq reads as a switch, and an option of ours, whose range its declaration gives."""
LISTS = {"lr": 1, "update_freq": 1, "adam_betas": 2, "phase_ratio": 3}


def refused(name, value):
    with pytest.raises(OptionError, match=f"^--{name.replace('_', '-')}: .*; expected .*(at most|below)") as raised:
        refuse_out_of_range({name: value}, {name: value})
    return str(raised.value)


def test_every_number_that_is_obeyed_has_a_range():
    numbers = {action.dest for parser in parsers() for action in parser._actions if action.type in (int, float)}
    assert (numbers & OBEYED) - WITHOUT_RANGE <= RANGES.keys() <= OBEYED


@pytest.mark.parametrize("name", RANGES)
def test_values_out_of_range(name):
    for value in (10**20, -(10**20), math.nan):
        refused(name, [value] * LISTS[name] if name in LISTS else value)


def test_lists():
    assert refused("lr", []).startswith("--lr: no value; expected one value or more")
    assert refused("lr", [0.1, 0.0]).startswith("--lr: 0.1,0.0; expected")
    assert refused("adam_betas", "(0.9,)").startswith("--adam-betas: 0.9; expected 2 values")
    accepted = {"lr": [0.1, 0.2], "update_freq": [2, 1], "adam_betas": "(0.9, 0.98)", "phase_ratio": [0.1, 0.4, 0.5]}
    refuse_out_of_range(accepted, accepted)


def test_values_that_are_not_given_are_left_alone():
    refuse_out_of_range({"warmup_updates": 3}, {"warmup_updates": 3, "lr_period_updates": -1.0})
    refuse_out_of_range({"encoder_layers": "[(16, 3)]"}, {"encoder_layers": "[(16, 3)]"})  # a list of fconv
