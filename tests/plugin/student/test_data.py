"""The data of a student: what fairseq-train reads, dev pairs of several splits, padded items, refused files."""

import logging

import pytest
import torch
from fairseq import tasks

from fairseq_l2t.plugin import OptionError
from fairseq_l2t.plugin.student.data import load_data
from fairseq_l2t.plugin.student_options import parse_student_options
from fairseq_l2t.testing.tiny_students import arguments, make_student
from tests.split_copies import with_short_side, with_splits

LOGGER = "fairseq_l2t.plugin.student.data"
BUCKETS = ("--max-tokens", "400", "--num-batch-buckets", "2")


class _AnyLength:
    """As much of a model as decides which dev pairs are usable."""

    def max_positions(self):
        return 1024, 1024


def loaded(data, *more):
    """Return a task with the data of a student, and its dev pairs, without the time to build the student."""
    options = parse_student_options(arguments(data, "fconv", "adam", *more))
    task = tasks.setup_task(options.cfg.task)
    return task, load_data(task, options, _AnyLength())


def pairs_of(dev):
    return sorted(dev.teaching + dev.holdout)


@pytest.fixture(scope="module")
def plain(data_bin):
    return make_student(data_bin, "transformer_tied", "adam", "--max-tokens", "400").double()


# --- padding inside items ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("more", [BUCKETS, ("--max-tokens", "400", "--required-seq-len-multiple", "8")])
def test_padding_changes_no_measure(data_bin, plain, more):
    padded = make_student(data_bin, "transformer_tied", "adam", *more).double()
    dev, pairs = padded.dev, list(plain.dev.teaching[:4])
    widths = [
        padded.dev.sample([pair])["target"].shape[1] > plain.dev.sample([pair])["target"].shape[1] for pair in pairs
    ]
    assert any(widths)
    for pair in pairs:
        assert dev.target(pair).tolist() == plain.dev.target(pair).tolist()
        assert dev.source_length(pair) == plain.dev.source_length(pair)
        text = padded.dev_measures.reference_text(pair)
        assert text == plain.dev_measures.reference_text(pair)
        assert padded.reward()(padded.dev_measures.hypothesis_text(dev.target(pair).tolist()), text) == pytest.approx(1)
    for name in ("likelihood", "calibrated-perplexity", "expected-bleu"):
        value, gradient = padded.dev_objective(name, pairs=pairs, samples=3)
        expected, expected_gradient = plain.dev_objective(name, pairs=pairs, samples=3)
        assert value == pytest.approx(expected, rel=1e-10)
        assert (gradient - expected_gradient).norm() < 1e-8 * expected_gradient.norm()
    found, expected = (student.dev_measures.validate(pairs)[:2] for student in (padded, plain))
    assert found == pytest.approx(expected, rel=1e-10)


def test_padding_hides_no_dev_pair_in_train(data_bin, tmp_path):
    # 40 pairs of train1 beside 400 others: their buckets differ from those of the same pairs in dev.
    data = with_splits(data_bin, tmp_path / "bin", train1="test", valid="test")
    found = {}
    for more in ((), BUCKETS):
        with pytest.raises(OptionError, match="of its pairs also occur in the training data") as raised:
            loaded(data, *more)
        found[more] = str(raised.value)
    assert found[BUCKETS] == found[()]
    assert "dev split valid: 40 of its pairs" in found[()]


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--num-batch-buckets", "2"], "--num-batch-buckets: 2; expected together with --max-tokens"),
        (["--num-batch-buckets=-1"], "--num-batch-buckets: -1; expected a whole number of at least 0"),
        (["--required-seq-len-multiple", "0"], "--required-seq-len-multiple: 0; expected a whole number of at least 1"),
    ],
)
def test_paddings_without_meaning(data_bin, more, message):
    with pytest.raises(OptionError, match=message):
        loaded(data_bin, *more)


@pytest.mark.parametrize("more", [BUCKETS, ("--required-seq-len-multiple", "8")])
def test_lstm_takes_no_more_padding(data_bin, more):
    with pytest.raises(OptionError, match=rf"{more[-2]}: {more[-1]}; --arch lstm takes"):
        make_student(data_bin, "lstm", "adam", *more)


# --- splits ------------------------------------------------------------------------------------------------------


def test_all_parts_of_train(data_bin, tmp_path):
    data = with_splits(data_bin, tmp_path / "bin", train1="test")
    for more, pairs in (((), 440), (("--upsample-primary", "2"), 840)):
        assert len(loaded(data, *more)[0].dataset("train")) == pairs
    assert len(loaded(data_bin)[0].dataset("train")) == 400


def test_all_dev_splits(data_bin):
    both = make_student(data_bin, "fconv", "adam", "--valid-subset", "valid,test").double()
    assert pairs_of(both.dev) == list(range(100))
    batch = both.dev.sample([59, 60, 99])
    assert sorted(batch["id"].tolist()) == [59, 60, 99]
    for row, pair in enumerate(batch["id"].tolist()):
        part, index = ("valid", pair) if pair < 60 else ("test", pair - 60)
        expected = both.task.dataset(part)[index]
        target = batch["target"][row]
        assert target[target != both.task.target_dictionary.pad()].tolist() == expected["target"].tolist()
        assert both.dev.target(pair).tolist() == expected["target"].tolist()
        assert both.dev.source_length(pair) == len(expected["source"])
    valid, test, all_ = (both.dev_measures.validate(part).loss for part in (range(60), range(60, 100), range(100)))
    tokens = [sum(both.task.dataset(split).tgt_sizes) for split in ("valid", "test")]
    assert all_ == pytest.approx((valid * tokens[0] + test * tokens[1]) / sum(tokens), rel=1e-10)
    assert abs(valid - test) > 1e-4
    value, gradient = both.dev_objective("expected-bleu", pairs=[0, 60], samples=2)
    assert 0 <= value < 1 and bool(torch.isfinite(gradient).all())


def test_numbered_dev_splits_are_named_combined_or_ignored(data_bin, tmp_path):
    data = with_splits(data_bin, tmp_path / "bin", valid1="test")
    with pytest.raises(ValueError, match="Valid paths .*valid1.* will be ignored. Set --combine-val"):
        loaded(data)
    assert len(pairs_of(loaded(data, "--combine-val")[1])) == 100
    assert len(pairs_of(loaded(data, "--ignore-unused-valid-subsets")[1])) == 60


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--valid-subset", "valid,valid"], "--valid-subset: valid,valid names valid twice"),
        (["--combine-val", "--valid-subset", "test"], "--combine-valid-subsets: --valid-subset is test; only valid"),
    ],
)
def test_dev_splits_without_meaning(data_bin, more, message):
    with pytest.raises(OptionError, match=message):
        loaded(data_bin, *more)


def test_dev_pairs_in_another_part_of_train_or_another_dev_split(data_bin, tmp_path):
    data = with_splits(data_bin, tmp_path / "bin", train1="test")
    loaded(data)
    with pytest.raises(OptionError, match="dev splits valid, test: 40 of its pairs also occur in the training data"):
        loaded(data, "--valid-subset", "valid,test")


# --- pairs that are too long -------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["--max-source-positions", "--max-target-positions"])
def test_dev_pairs_beyond_the_limits_are_counted(data_bin, plain, caplog, option):
    side = "source" if "source" in option else "target"
    lengths = [len(plain.task.dataset("valid")[pair][side]) for pair in range(60)]
    kept = [pair for pair in range(60) if lengths[pair] <= 40]
    assert 10 < len(kept) < 50
    with caplog.at_level("INFO"):
        student = make_student(data_bin, "transformer_tied", "adam", option, "40")
    assert pairs_of(student.dev) == kept
    told = [record for record in caplog.records if record.name == LOGGER]
    assert [record.levelno for record in told] == [logging.WARNING]
    assert f"dev split valid: {60 - len(kept)} of its 60 pairs are left out" in told[0].getMessage()
    assert option in told[0].getMessage() and "--skip-invalid-size-inputs-valid-test" in told[0].getMessage()
    assert "samples have invalid sizes and will be skipped" in caplog.text  # fairseq on the training pairs


def test_dev_pairs_that_may_be_left_out(data_bin, caplog):
    with caplog.at_level("INFO"):
        loaded(data_bin, "--max-source-positions", "40", "--skip-invalid-size-inputs-valid-test")
        loaded(data_bin)
    told = [record for record in caplog.records if record.name == LOGGER]
    assert [record.levelno for record in told] == [logging.INFO]


# --- files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("split", "counts"), [("valid", (60, 40)), ("train", (400, 40))])
def test_sides_of_unequal_length(data_bin, tmp_path, split, counts):
    data = with_short_side(data_bin, tmp_path / "bin", split, "en")
    source, target = (f"{data}/{split}.de-en.{language}" for language in ("de", "en"))
    message = f"split {split}: {source} has {counts[0]} sentences and {target} has {counts[1]}; expected equal numbers"
    with pytest.raises(OptionError) as raised:
        loaded(data)
    assert str(raised.value) == message


def test_sides_of_unequal_length_in_a_later_part(data_bin, tmp_path):
    data = with_splits(data_bin, tmp_path / "bin", train1="test")
    for ending in ("bin", "idx"):
        (data / f"train1.de-en.de.{ending}").write_bytes((data_bin / f"valid.de-en.de.{ending}").read_bytes())
    with pytest.raises(OptionError, match=r"split train: .*train1.de-en.de has 60 sentences and .*en has 40"):
        loaded(data)


def test_missing_side(data_bin, tmp_path):
    data = with_splits(data_bin, tmp_path / "bin")
    (data / "valid.de-en.en.idx").unlink()
    with pytest.raises(OptionError, match=r"split valid: .*valid.de-en.en not found; expected both sides"):
        loaded(data)
