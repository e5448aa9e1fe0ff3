"""The benchmark of the student's overhead: real runs of fairseq-train that take turns."""

import json
import multiprocessing

import pytest

from benchmarks import student_overhead
from benchmarks.fairseq_turns import TrainingFailed, _Turns
from benchmarks.random_corpus import write_random_corpus
from benchmarks.student_overhead import AGAIN, LOSSES, main, summary

SMALL = ["--families", "transformer", "--vocabulary", "50", "--max-tokens", "200", "--warmup", "1"]


def test_a_turn_has_so_many_updates():
    ours, theirs = multiprocessing.Pipe()
    turns = _Turns(theirs, warmup=2, updates=3)
    ours.send("turn")
    ours.send("turn")
    received = []
    for number in range(6):
        turns.before_update()
        while ours.poll():
            received.append((number, ours.recv()))
    # None once the two updates of the warm-up are made, seconds three updates later
    assert [number for number, _ in received] == [2, 5]
    assert received[0][1] is None and received[1][1] > 0
    ours.close()
    with pytest.raises(SystemExit):
        [turns.before_update() for _ in range(3)]


def test_every_word_is_in_the_vocabulary(tmp_path):
    data = write_random_corpus(tmp_path, 100, sentences=5)
    words = (data / "dict.en.txt").read_text("utf-8").splitlines()
    assert sum(line.startswith("word") for line in words) == 100


@pytest.mark.slow
def test_the_command_measures_each_loss_in_turn(tmp_path, capfd):
    path = tmp_path / "overhead.json"
    assert main([*SMALL, "--updates", "2", "--repeats", "2", "--json", str(path)]) == 0
    (record,) = json.loads(path.read_text("utf-8"))
    assert list(record["seconds"]) == [*LOSSES, AGAIN]
    assert all(len(own) == 2 and min(own) > 0 for own in record["seconds"].values())
    assert "| transformer | dynamic_teacher_loss" in capfd.readouterr().out


@pytest.mark.slow
def test_a_process_that_fails_ends_the_measurement(monkeypatch, capfd):
    wrong = ["--task", "l2t_dlf", "--criterion", "cross_entropy"]
    monkeypatch.setitem(LOSSES, "dynamic_teacher_loss", wrong)
    with pytest.raises(TrainingFailed, match="exit code 1"):
        main([*SMALL, "--updates", "1", "--repeats", "1"])
    assert "--criterion: cross_entropy; --task l2t_dlf trains with" in capfd.readouterr().err
    assert not multiprocessing.active_children()


def test_the_ratio_is_that_to_fairseqs_loss():
    seconds = {"label_smoothed_cross_entropy": [0.1, 0.2, 0.4], "dynamic_teacher_loss": [0.11, 0.19, 0.44]}
    lines = summary([{"family": "lstm", "seconds": seconds}]).splitlines()
    assert "0.950" in lines[3] and "1.100 (0.950 to 1.100)" in lines[3] and "190.0 (110.0 to 440.0)" in lines[3]
    assert "1.000 (1.000 to 1.000)" in lines[2]


def test_options_out_of_range(capsys):
    with pytest.raises(SystemExit):
        main(["--repeats", "0"])
    assert "--repeats: 0; expected at least 1" in capsys.readouterr().err
    assert student_overhead._parse([]).vocabulary == 10_000
