"""Schedules, lists of rates and frequencies, and normalisation: the updates of the unroll equal those of fairseq-train.

The schedule's length is that of the life: ``--total-updates`` here, ``--max-update`` in ``fairseq-train``.
"""

import pytest

from fairseq_l2t.core import unroll
from fairseq_l2t.plugin import FairseqStudent
from fairseq_l2t.plugin.teacher_run_options import TeacherRunOptions
from fairseq_l2t.testing.fairseq_reference import run_fairseq
from fairseq_l2t.testing.parity import largest_difference
from fairseq_l2t.testing.tiny_students import FAMILIES, spread_teacher

UPDATES, LIFE = 6, "8"
# 400 pairs: 4 batches an epoch, so that six updates need more than one.
COMMON = ["--batch-size", "100", "--required-batch-size-multiple", "1", "--optimizer", "nag", "--clip-norm", "1"]
SCHEDULES = {
    "fixed": "--force-anneal 2 --lr-shrink 0.5 --warmup-updates 2",
    "inverse_sqrt": "--warmup-updates 2 --warmup-init-lr 0.01",
    "cosine": "--warmup-updates 2 --min-lr 0.01",
    "polynomial_decay": "--power 2 --end-learning-rate 0.01",
    "triangular": "--max-lr 0.3 --lr-period-updates 4",
    "tri_stage": "--phase-ratio (0.25,0.25,0.5)",
    "step": "--lr-deacy-period 2 --lr-decay 0.5",
    "manual": "--update2lr {'1':0.1,'3-4':0.2,'5':0.05}",
}
OTHERS = {
    "no warm-up": "--lr 0.1",
    "no warm-up, cosine": "--lr 0.1 --lr-scheduler cosine",
    "lists": "--lr 0.1,0.05 --update-freq 2,1",
    "frequencies": "--lr 0.1 --update-freq 1,3",
    "sentences": "--lr 0.1 --sentence-avg --update-freq 2",
    "whole batches": "--lr 0.1 --skip-remainder-batch --update-freq 2",
}
CASES = {name: f"--lr 0.1 --lr-scheduler {name} {more}" for name, more in SCHEDULES.items()} | OTHERS


def unrolled(data_bin, given):
    life = ["--total-updates", LIFE, "--cross-entropy-updates", str(UPDATES), "--dev-batch", "8"]
    student = FairseqStudent.from_args([str(data_bin), *FAMILIES["fconv"], *COMMON, *given, *life])
    return student, unroll(student, spread_teacher(student), UPDATES).steps


@pytest.mark.parametrize("name", CASES)
def test_the_same_updates_as_fairseq(data_bin, tmp_path, name):
    given = CASES[name].split()
    student, steps = unrolled(data_bin, given)
    stock = [str(data_bin), *FAMILIES["fconv"], *COMMON, *given]
    stock += ["--max-update", LIFE, "--save-dir", str(tmp_path), "--no-progress-bar", "--num-workers", "0"]
    run = run_fairseq([*stock, "--criterion", "cross_entropy"], UPDATES, double=False)
    assert run.epochs > 1
    assert [step.size.lr for step in steps] == run.rates
    assert [[sample["id"].tolist() for sample in step.batch] for step in steps] == run.batches
    assert largest_difference(student, run.end) == 0
    assert largest_difference(student, run.start) > 1e-2
    # The controls: what the case is about has an effect here.
    if name in SCHEDULES or name == "no warm-up, cosine":
        assert len(set(run.rates)) > 1
    elif name == "lists":
        assert (len(run.batches[0]), len(run.batches[-1])) == (2, 1) and run.rates[0] > run.rates[-1]
    elif name == "frequencies":
        assert {len(batches) for batches in run.batches} == {1, 3}


def test_the_length_of_a_schedule_is_compared_on_resume(data_bin):
    def fixed(*more):
        common = [str(data_bin), *FAMILIES["fconv"], *COMMON, "--lr", "0.1", "--total-updates", LIFE, *more]
        return TeacherRunOptions.parse(common).fixed()

    cosine = fixed("--lr-scheduler", "cosine")
    assert cosine == fixed("--lr-scheduler", "cosine", "--max-update", LIFE)
    assert cosine != fixed("--lr-scheduler", "cosine", "--max-update", "9")
    assert fixed("--max-update", LIFE) == fixed("--max-update", "9")  # a fixed rate does not depend on it
