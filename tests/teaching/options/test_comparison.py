"""Which options a resumed run must share with the one it goes on with."""

import dataclasses

import pytest

from fairseq_l2t.teaching.options.comparison import ResumeError, fixed_options, refuse_other_options
from fairseq_l2t.testing.toy_lives import PLAN


def test_every_option_but_those_that_change_no_update():
    free = set(vars(PLAN)) - set(fixed_options(PLAN))
    assert {"memory_budget", "teacher_updates", "max_bad_steps", "keep_steps_in"} <= free
    assert not free & {"teacher_lr", "seed", "hvp", "keep_graphs", "dev_batch"}
    graphs = dataclasses.replace(PLAN, keep_graphs=True, memory_budget="1G")
    assert fixed_options(graphs)["memory_budget"] == "1G"  # it decides which updates are rounded otherwise


def test_other_values_are_refused_by_name():
    then = fixed_options(PLAN)
    refuse_other_options(then, fixed_options(dataclasses.replace(PLAN, teacher_updates=99)))
    with pytest.raises(ResumeError, match="^--resume: .*: --teacher-lr 0.05 then, 0.1 now$"):
        refuse_other_options(then, fixed_options(dataclasses.replace(PLAN, teacher_lr=0.1)))
    with pytest.raises(ResumeError, match="--lr 1 then, 2 now; --seed None then, 3 now$"):
        refuse_other_options({"lr": "1"}, {"lr": "2", "seed": "3"})
    with pytest.raises(ResumeError, match=r"--lr 0.1,0.2 then, 0.3 now; --trust-module a.B,c.D then,  now$"):
        then = {"lr": "[0.1, 0.2]", "trust_module": ["a.B", "c.D"]}
        refuse_other_options(then, {"lr": "[0.3]", "trust_module": []})


def test_a_value_that_follows_from_another_is_not_told():
    then, now = {"teacher_lr": 1, "teacher_word_lr": 0.1}, {"teacher_lr": 2, "teacher_word_lr": 0.2}
    with pytest.raises(ResumeError, match="other options: --teacher-lr 1 then, 2 now$"):
        refuse_other_options(then, now, given={"teacher_lr"}, preset="paper")
    with pytest.raises(ResumeError, match="--teacher-lr 1 then, 2 now; --teacher-word-lr 0.1 then, 0.2 now$"):
        refuse_other_options(then, now, given={"teacher_lr", "teacher_word_lr"}, preset="paper")


def test_a_value_of_a_preset_is_told():
    with pytest.raises(ResumeError, match=r"--lr 1 then, 2 now \(options that are not given have .* --preset paper\)$"):
        refuse_other_options({"lr": "1"}, {"lr": "2"}, given={"seed"}, preset="paper")
    with pytest.raises(ResumeError, match="--lr 1 then, 2 now$"):
        refuse_other_options({"lr": "1"}, {"lr": "2"}, given={"lr"}, preset="paper")
