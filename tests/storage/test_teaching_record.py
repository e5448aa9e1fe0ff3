"""Which options a resumed run must share with the one it goes on with."""

import pytest

from fairseq_l2t.storage import ResumeError, refuse_other_options


@pytest.mark.parametrize("text", [False, True])  # l2t-train-teacher keeps its options as text, l2t-classify as they are
@pytest.mark.parametrize(("name", "idle", "other"), [
    ("teacher_lr_shrink", 1.0, 0.5),
    ("coefficient_form", "diagonal", "smoothed"),
    ("stage_spread", 0.0, 4.0),
    ("split_seed", 0, 1),
])  # fmt: skip
def test_an_option_that_did_not_exist_has_no_effect(name, idle, other, text):
    def given(value):
        return {"lr": "1", name: str(value) if text else value}

    refuse_other_options({"lr": "1"}, given(idle))
    with pytest.raises(ResumeError, match=f"^--resume: .*: --{name.replace('_', '-')} {idle} then, {other} now$"):
        refuse_other_options({"lr": "1"}, given(other))
    with pytest.raises(ResumeError):  # it existed, and was used
        refuse_other_options(given(other), given(idle))


def test_any_other_option_must_be_the_same():
    refuse_other_options({"lr": "1"}, {"lr": "1"})
    with pytest.raises(ResumeError, match="--lr 1 then, 2 now; --seed None then, 3 now$"):
        refuse_other_options({"lr": "1"}, {"lr": "2", "seed": "3"})
