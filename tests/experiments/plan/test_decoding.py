"""What students translate: length penalties chosen on dev, the test set after everything else."""

import pytest

from experiments.plan.translation import Experiment
from experiments.records.translation import read_records
from fairseq_l2t.pairs.programs import StepFailed
from tests.experiments.finished_runs import compare_all, finish_all, mark_done, table_of, with_values


def with_penalties(experiment, *penalties):
    """The same experiment with several length penalties and a dev set of two sentences."""
    reference = experiment.setting.data_bin.parent / "text" / "valid.en"
    reference.parent.mkdir(parents=True)
    reference.write_text("a b c d e f\na b c d e f\n", encoding="utf-8")
    return Experiment(with_values(experiment.grid, length_penalties=penalties), experiment.setting)


def finish_dev(experiment, penalty, hypotheses, seed=1, loss="dynamic"):
    log = experiment.log("any").parent / f"tiny.noise30.dev.transformer.{loss}.seed{seed}.lenpen{penalty}"
    lines = "".join(f"D-{number}\t-0.5\t{text}\n" for number, text in enumerate(hypotheses))
    log.with_name(f"{log.name}.out").write_text(lines, encoding="utf-8")
    mark_done(experiment, log.name)


def test_of_several_length_penalties_dev_chooses_one_for_each_run(experiment):
    experiment = with_penalties(experiment, 1.0, 1.5, 2.0)
    student, decoding, name = finish_all(experiment), experiment.decoding, "tiny.noise30"
    loss = experiment.grid.losses["dynamic"]
    steps = {step.name: step for step in experiment.steps()}
    dev = {
        seed: [f"{name}.dev.transformer.dynamic.seed{seed}.lenpen{penalty}" for penalty in ("1", "1.5", "2")]
        for seed in (1, 2)
    }
    best = str(experiment.checkpoints(experiment.chosen(student, loss).name) / "checkpoint_best.pt")
    assert [steps[one].late() for one in dev[1]] == [("--path", best, "--lenpen", one) for one in ("1", "1.5", "2")]
    assert all(steps[one].command[steps[one].command.index("--gen-subset") + 1] == "valid" for one in dev[1] + dev[2])
    test = {seed: steps[f"{name}.decode.transformer.dynamic.seed{seed}"] for seed in (1, 2)}
    for seed, step in test.items():
        assert step.command[-4:] == ("--max-len-a", "1.2", "--max-len-b", "10")
        assert {one for one in step.after if ".dev." in one} == set(dev[seed])
    short, right = ["a b c d", "a b c d"], ["a b c d e f", "a b c d e f"]
    finish_dev(experiment, "1", short)
    finish_dev(experiment, "1.5", right)
    assert decoding.length_penalty(student, loss, 1) is None  # not before all are there
    finish_dev(experiment, "2", right)
    for penalty, hypotheses in (("1", short), ("1.5", short), ("2", right)):
        finish_dev(experiment, penalty, hypotheses, seed=2)
    scores = decoding.dev_scores(student, loss, 1)
    assert scores[1.5] == scores[2.0] == pytest.approx(100.0) and 0 < scores[1.0] < 100
    assert decoding.length_penalty(student, loss, 1) == 1.5  # the first of equals
    assert [step.late()[2:] for step in test.values()] == [("--lenpen", "1.5"), ("--lenpen", "2")]
    assert "| `--lr 0.01 --lenpen 1.5, 2` |" in table_of(experiment)["dynamic"]
    records = [record for record in read_records(experiment.setting.folder) if record["loss"] == "dynamic"]
    assert [record["length_penalty"] for record in records] == [1.5, None, 2.0]
    assert records[0]["dev_bleu_by_length_penalty"]["1"] == scores[1.0]
    finish_dev(experiment, "2", right[:1])
    with pytest.raises(StepFailed, match=r"lenpen2.out: 1 hypotheses for 2 sentences"):
        Experiment(experiment.grid, experiment.setting).decoding.length_penalty(student, loss, 1)


@pytest.mark.parametrize("better", ["cross-entropy", "label-smoothing"])
def test_the_best_baseline_is_that_of_the_decodings(experiment, better):
    """Label smoothing is ahead in the validations of training; what is compared on test is decoded as dev is here."""
    experiment = with_penalties(experiment, 1.0, 2.0)
    student = finish_all(experiment)
    assert experiment.decoding.baseline(student).name == "label-smoothing"
    for loss in experiment.grid.baselines:
        for seed in experiment.grid.seeds:
            for penalty in ("1", "2"):
                right = "a b c d e f" if (loss, penalty) == (better, "2") else "a b c d"
                finish_dev(experiment, penalty, 2 * [right], seed, loss)
    assert experiment.decoding.baseline(student).name == better


def test_a_comparison_counts_while_the_decodings_it_is_of_are_there(experiment):
    """Dev decodings that are missing, or whose run is trained anew, are made again; the record says so until then."""
    experiment = with_penalties(experiment, 1.0, 2.0)
    student, hypotheses = finish_all(experiment), 2 * ["a b c d e f"]
    for loss in experiment.grid.losses:
        for seed in experiment.grid.seeds:
            for penalty in ("1", "2"):
                finish_dev(experiment, penalty, hypotheses, seed, loss)
    score = {"BLEU": {"score": 1.0, "p_value": None}, "chrF2": {"score": 1.0, "p_value": None}}
    compare_all(
        experiment,
        lambda seed: [
            {"name": f"transformer.{name}.seed{seed}.txt", **score}
            for name in ("cross-entropy", "label-smoothing", "fixed", "dynamic")
        ],
    )
    first, second = experiment.grid.seeds
    assert experiment.decoding.is_compared(student, first) and experiment.decoding.is_compared(student, second)
    more = Experiment(with_values(experiment.grid, length_penalties=(1.0, 1.5, 2.0)), experiment.setting)
    assert not more.decoding.is_compared(student, first)
    for missing, still in (
        ("dev.transformer.dynamic.seed2.lenpen2", first),
        ("train.transformer.dynamic.seed2", first),
        ("dev.transformer.cross-entropy.seed2.lenpen1", None),
    ):
        marker = experiment.logs / f"tiny.noise30.{missing}.done"
        kept = marker.read_text(encoding="utf-8")
        marker.unlink()
        # A baseline's other seed has a say in which baseline is the best; another loss's has none.
        assert [experiment.decoding.is_compared(student, seed) for seed in (first, second)] == [still == first, False]
        table_of(experiment)  # the records can be written
        marker.write_text(kept, encoding="utf-8")
    assert experiment.decoding.is_compared(student, second)


def test_a_single_length_penalty_is_no_choice(experiment):
    student = finish_all(experiment)
    other = Experiment(with_values(experiment.grid, length_penalties=(0.6,)), experiment.setting)
    for one, expected in ((experiment, ()), (other, ("--lenpen", "0.6"))):
        steps = list(one.steps())
        assert not [step for step in steps if ".dev." in step.name]
        assert [step.late()[2:] for step in steps if ".decode.transformer.dynamic." in step.name] == 2 * [expected]
    assert "lenpen" not in table_of(experiment)["dynamic"]
    assert experiment.decoding.dev_scores(student, experiment.grid.losses["dynamic"], 1) is None


def test_the_test_set_is_seen_after_everything_is_chosen(experiment):
    """Only decodings name it, once a run that counts; comparisons wait for every seed of the baselines."""
    steps = list(experiment.steps())
    seen = [step for step in steps if "test" in step.command]
    assert [step.name for step in seen] == [
        f"tiny.noise30.decode.transformer.{loss}.seed{seed}" for loss in experiment.grid.losses for seed in (1, 2)
    ]
    assert all(".train." in name for step in seen for name in step.after)
    [first, _] = [step for step in steps if ".compare." in step.name]
    assert {f"tiny.noise30.decode.transformer.{loss}.seed2" for loss in experiment.grid.baselines} < set(first.after)
